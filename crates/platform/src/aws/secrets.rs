//! The secrets of Secrets Manager and Systems Manager, and those of this machine.

use async_trait::async_trait;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;

use super::fault::Asked;
use crate::local::LocalSecrets;
use crate::{Result, Secret, Secrets};

#[derive(Debug)]
pub(super) struct AwsSecrets {
    pub(super) secrets_manager: aws_sdk_secretsmanager::Client,
    pub(super) ssm: aws_sdk_ssm::Client,
    pub(super) region: String,
}

#[async_trait]
impl Secrets for AwsSecrets {
    async fn read(&self, reference: &str) -> Result<Option<Secret>> {
        match reference.split_once(':') {
            Some(("secretsmanager", arn)) if !arn.is_empty() => self.secret(arn).await,
            Some(("ssm", name)) if !name.is_empty() => self.parameter(name).await,
            _ => LocalSecrets.read(reference).await,
        }
    }
}

impl AwsSecrets {
    fn asked(&self, thing: String) -> Asked {
        Asked {
            operation: "read",
            place: format!("{thing} in {}", self.region),
            thing,
            capability: None,
        }
    }

    async fn secret(&self, arn: &str) -> Result<Option<Secret>> {
        let asked = self.asked(format!("secret {arn}"));
        let answer = self
            .secrets_manager
            .get_secret_value()
            .secret_id(arn)
            .send()
            .await;
        match answer {
            Ok(answer) => match (answer.secret_string, answer.secret_binary) {
                (Some(text), _) => Ok(Some(Secret::new(text))),
                (None, Some(bytes)) => match String::from_utf8(bytes.into_inner()) {
                    Ok(text) => Ok(Some(Secret::new(text))),
                    // The error itself holds the bytes.
                    Err(_) => Err(asked.corrupt(NoText)),
                },
                (None, None) => Err(asked.corrupt(NoText)),
            },
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(asked.failed(error)),
        }
    }

    async fn parameter(&self, name: &str) -> Result<Option<Secret>> {
        let asked = self.asked(format!("parameter {name}"));
        let answer = self
            .ssm
            .get_parameter()
            .name(name)
            .with_decryption(true)
            .send()
            .await;
        match answer {
            Ok(answer) => match answer.parameter.and_then(|parameter| parameter.value) {
                Some(text) => Ok(Some(Secret::new(text))),
                None => Err(asked.corrupt(NoText)),
            },
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetParameterError::is_parameter_not_found) =>
            {
                Ok(None)
            }
            Err(error) => Err(asked.failed(error)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a secret is UTF-8 text")]
struct NoText;
