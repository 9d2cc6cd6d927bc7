//! What the SDK's errors mean, in the words of the ports.
//!
//! | what happened | becomes |
//! |---|---|
//! | no connection, no answer in time, 5xx, throttling, a conflict of transactions, credentials that expired or could not be fetched, a clock that is wrong | `Unavailable` |
//! | no such table, queue or bucket; no permission; no or wrong credentials; a request that is not valid | `Refused`, with what to do now |
//! | a reply or a row that cannot be read | `Corrupt` |
//!
//! What AWS says is passed on, because a person needs it to find the policy or the name that is wrong. It repeats names
//! of queues and keys of rows, in which session ids are: those are shortened everywhere.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use contract::SessionId;

use crate::PortError;
use crate::error::without_session_ids;

/// What was asked, of what, and where: everything that an error has to say beside its cause.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) operation: &'static str,
    /// Such as `session 4f5g6h7j`. Holds no capability.
    pub(super) thing: String,
    /// What has to exist and to be allowed, such as `table webordinary-edit-sessions in eu-central-1`.
    pub(super) place: String,
    /// An id that is a capability and that AWS may repeat.
    pub(super) capability: Option<String>,
}

impl Asked {
    /// The same about a session, whose id is shortened in everything that is said.
    pub(super) fn of(self, session: &SessionId) -> Self {
        Self {
            capability: Some(session.to_string()),
            ..self
        }
    }

    /// An error for what the SDK says.
    pub(super) fn failed<E>(&self, error: SdkError<E, HttpResponse>) -> PortError
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let code = error.code().unwrap_or_default().to_owned();
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        match error {
            SdkError::ConstructionFailure(failure) => {
                let said = chain(&SdkError::<E, HttpResponse>::ConstructionFailure(failure));
                self.refused(format!("the request could not be made: {said}"))
            }
            SdkError::ResponseError(response) => {
                let said = chain(&SdkError::<E, HttpResponse>::ResponseError(response));
                match status {
                    // A proxy or a load balancer in between, which does not speak the protocol.
                    Some(200..=299) => self.corrupt(Said(said)),
                    _ => self.unavailable(&said),
                }
            }
            SdkError::ServiceError(service) => {
                let message = service.err().message().unwrap_or_default().to_owned();
                let said = format!("{code}: {message}");
                self.judged(&code, status, &said)
            }
            error => match credentials(&error) {
                Some(CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)) => self
                    .refused(
                        "there are no AWS credentials: give the task a role, or set AWS_ACCESS_KEY_ID and \
                         AWS_SECRET_ACCESS_KEY"
                            .to_owned(),
                    ),
                _ => self.unavailable(&chain(&error)),
            },
        }
    }

    fn judged(&self, code: &str, status: Option<u16>, said: &str) -> PortError {
        // Older protocols put the service before the code: `AWS.SimpleQueueService.NonExistentQueue`.
        let last = code.rsplit(['.', '#']).next().unwrap_or(code);
        match last {
            "" => match status {
                Some(status @ 400..=499) => self.refused(format!(
                    "HTTP {status} without a word: what is at AWS_ENDPOINT_URL is not AWS, or something stands in between"
                )),
                Some(200..=299) => self.corrupt(Said("the answer is not of this service".to_owned())),
                _ => self.unavailable(said),
            },
            _ if status.is_some_and(|status| status >= 500 || status == 429) => {
                self.unavailable(said)
            }
            // A machine that was held up between signing and sending says the same as one whose clock is wrong. The SDK
            // signs again by the clock of AWS where that says what time it is.
            "RequestTimeTooSkewed" | "RequestExpired" => self.unavailable(&clock(said)),
            "InvalidSignatureException" | "SignatureDoesNotMatch"
                if said.contains("Signature expired") || said.contains("not yet current") =>
            {
                self.unavailable(&clock(said))
            }
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "KmsThrottled"
            | "SlowDown"
            | "OverLimit"
            // A queue of that name was there until a moment ago; in a minute it can be made again.
            | "QueueDeletedRecently"
            | "RequestTimeout"
            | "TransactionConflictException"
            | "TransactionInProgressException"
            | "ReplicatedWriteConflictException"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InternalServerError"
            | "InternalServiceError"
            | "ServiceUnavailable" => self.unavailable(said),
            "ClusterNotFoundException" => self.refused(format!(
                "there is no such cluster: name the one that exists in ECS_CLUSTER ({})",
                self.place
            )),
            "ResourceNotFoundException"
            | "QueueDoesNotExist"
            | "NonExistentQueue"
            | "NoSuchBucket" => self.refused(format!(
                "there is no {}: deploy infra/data.yaml there, or name the one that exists",
                self.place
            )),
            "AccessDeniedException"
            | "AccessDenied"
            | "KmsAccessDenied"
            | "AuthorizationError"
            | "AccessDeniedByServiceControlPolicy" => self.refused(format!(
                "the role may not do that to {}: give it what the templates in infra/ give ({said})",
                self.place
            )),
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSecurity"
            | "InvalidAccessKeyId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException" => self.refused(format!(
                "AWS does not accept the credentials: check the role or AWS_ACCESS_KEY_ID ({said})"
            )),
            _ => self.refused(format!("{} answers {said}", self.place)),
        }
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> PortError {
        PortError::Refused {
            operation: self.operation,
            thing: self.thing.clone(),
            reason: self.shown(&reason.into()),
        }
    }

    pub(super) fn unavailable(&self, said: &str) -> PortError {
        PortError::Unavailable {
            operation: self.operation,
            thing: self.thing.clone(),
            source: Box::new(Said(self.shown(said))),
        }
    }

    pub(super) fn corrupt(&self, source: impl StdError + Send + Sync + 'static) -> PortError {
        PortError::Corrupt {
            operation: self.operation,
            thing: self.thing.clone(),
            source: Box::new(Said(self.shown(&chain(&source)))),
        }
    }

    /// A text without capabilities in it.
    pub(super) fn shown(&self, text: &str) -> String {
        without_session_ids(text, self.capability.as_deref())
    }
}

fn clock(said: &str) -> String {
    format!("check the clock of this machine, by which requests are signed: {said}")
}

/// The credentials' own error, if that is why a request could not be sent.
fn credentials<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<CredentialsError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// An error and its causes in one line. The SDK's causes hold what was sent and received; this is what they say.
fn chain(error: &dyn StdError) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !said.ends_with(&next) {
            said.push_str(": ");
            said.push_str(&next);
        }
        cause = error.source();
    }
    said
}

/// What somebody else said, without its type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);
