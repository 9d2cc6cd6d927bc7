//! The objects of an S3 bucket.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::operation::get_object::GetObjectError;

use super::Patience;
use super::fault::Asked;
use crate::error::without_session_ids;
use crate::{Objects, PortError, Result, check_key};

#[derive(Debug)]
pub(super) struct S3Objects {
    pub(super) s3: aws_sdk_s3::Client,
    pub(super) bucket: String,
    pub(super) patience: Patience,
}

/// A client of S3. AWS has a host a bucket; whoever stands in for it at an address of its own has not.
pub(super) fn client(config: &SdkConfig) -> aws_sdk_s3::Client {
    let elsewhere = config.endpoint_url().is_some()
        || ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|url| !url.is_empty()));
    aws_sdk_s3::Client::from_conf(Builder::from(config).force_path_style(elsewhere).build())
}

impl S3Objects {
    /// A request about an object, once its key is known to be one.
    fn asked(&self, operation: &'static str, key: &str) -> Result<Asked> {
        let shown = without_session_ids(key, None);
        let asked = Asked {
            operation,
            thing: format!("object {shown} of bucket {}", self.bucket),
            place: format!("bucket {}", self.bucket),
            capability: None,
        };
        match check_key(key) {
            Ok(()) => Ok(asked),
            Err(reason) => Err(asked.refused(reason)),
        }
    }

    fn deadlines(&self) -> Builder {
        Builder::new().timeout_config(self.patience.with(self.patience.transfer))
    }

    /// The object, and all of its bytes.
    async fn fetch(&self, asked: &Asked, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let answer = self
            .s3
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .customize()
            .config_override(self.deadlines())
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetObjectError::is_no_such_key) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(asked.failed(error)),
        };
        let announced = answer.content_length().unwrap_or_default();
        if u64::try_from(announced).is_ok_and(|announced| announced > max_bytes) {
            return Err(too_large(asked, max_bytes));
        }
        let mut body = answer.body;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| asked.unavailable(&error.to_string()))?;
            let length = bytes.len().saturating_add(chunk.len());
            if u64::try_from(length).is_ok_and(|length| length > max_bytes) {
                return Err(too_large(asked, max_bytes));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }
}

#[async_trait]
impl Objects for S3Objects {
    async fn get(&self, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let asked = self.asked("read", key)?;
        // The SDK's deadlines end with the headers; the bytes come afterwards.
        let most: Duration = self.patience.operation + self.patience.transfer;
        match tokio::time::timeout(most, self.fetch(&asked, key, max_bytes)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(asked.unavailable("its bytes did not come in time")),
        }
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let asked = self.asked("write", key)?;
        self.s3
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(bytes.into())
            .customize()
            .config_override(self.deadlines())
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let asked = self.asked("delete", key)?;
        self.s3
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
            .map_err(|error| asked.failed(error))?;
        Ok(())
    }
}

fn too_large(asked: &Asked, max_bytes: u64) -> PortError {
    asked.refused(format!("it has more than {max_bytes} bytes"))
}
