//! One life of a plugin: the way to call it, until its process is another one or gone.
//!
//! The protocols know no second attempt: a plugin may refuse to make what it has made. A call of which it is not known whether it
//! was done is undone, at once or before the next one of its kind.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::message::Nothing;
use crate::{
    core::model::Name,
    driver::DriverError,
    plugin::{CallError, Client, Mark},
};

/// How long a plugin may take to undo what it may have done.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);

/// The way to a plugin. When its life is over, it calls no more: whoever is there now knows nothing of what was told before.
pub(super) struct Link {
    name: String,
    /// What its methods' names begin with, `NetworkDriver` for one.
    protocol: &'static str,
    client: Client,
    mark: Option<Mark>,
    life: CancellationToken,
    /// What may have been done and was not undone yet: the undoing call's method and body.
    doubts: Mutex<BTreeSet<(&'static str, String)>>,
}

impl Link {
    pub(super) async fn new(name: &Name, protocol: &'static str, client: Client) -> Self {
        Self {
            name: name.to_string(),
            protocol,
            mark: client.mark().await,
            client,
            life: CancellationToken::new(),
            doubts: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn life(&self) -> CancellationToken {
        self.life.clone()
    }

    /// Returns where the plugin listens.
    pub(super) fn address(&self) -> String {
        self.client.address().to_string()
    }

    /// Calls a method.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<T, DriverError> {
        let answer = self.ask(method, request).await?;
        answer.map_err(|error| self.failure(&error))
    }

    /// Calls a method, and leaves it to the caller what a failure means.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
    ) -> Result<Result<T, CallError>, DriverError> {
        self.check_life().await?;
        Ok(self.client.call(&self.full(method), request).await)
    }

    /// As [`Self::ask`], with a deadline of its own.
    pub(super) async fn ask_within<T: DeserializeOwned>(
        &self,
        method: &str,
        request: &impl Serialize,
        deadline: Duration,
    ) -> Result<Result<T, CallError>, DriverError> {
        self.check_life().await?;
        let method = self.full(method);
        Ok(self.client.call_within(&method, request, deadline).await)
    }

    /// Undoes what may have been done. If that is not known to have worked either, it is tried again before the next time.
    pub(super) async fn undo(&self, method: &'static str, request: &impl Serialize) {
        let full = self.full(method);
        let undone = self
            .client
            .call_within::<Nothing>(&full, request, UNDO_DEADLINE)
            .await;
        let doubt = (method, body(request));
        match undone {
            // It says that there is nothing to undo.
            Ok(Nothing {}) | Err(CallError::Failed { .. } | CallError::NotImplemented { .. }) => {
                self.doubts().remove(&doubt);
            }
            // Its process has ended, and with it what it may have done.
            Err(error) if error.is_gone() => {
                self.life.cancel();
                self.doubts().remove(&doubt);
            }
            Err(error) => {
                tracing::warn!(driver = self.name, %error, "what a plugin may have done is not undone yet");
                self.doubts().insert(doubt);
            }
        }
    }

    /// As [`Self::undo`], but fails if it is not known to have worked.
    pub(super) async fn undo_for_sure(
        &self,
        method: &'static str,
        request: &impl Serialize,
    ) -> Result<(), DriverError> {
        self.check_life().await?;
        self.undo(method, request).await;
        self.check_undone(method, &body(request))
    }

    /// Undoes what is in doubt, if this is.
    pub(super) async fn settle(
        &self,
        method: &'static str,
        request: &impl Serialize,
    ) -> Result<(), DriverError> {
        let body = body(request);
        if self.check_undone(method, &body).is_err() {
            self.undo(method, request).await;
        }
        self.check_undone(method, &body)
    }

    fn check_undone(&self, method: &'static str, body: &str) -> Result<(), DriverError> {
        if !self.doubts().contains(&(method, body.to_owned())) {
            return Ok(());
        }
        Err(DriverError::Unreachable {
            driver: self.name.clone(),
            reason: format!("{} has not undone an earlier call yet", self.full(method)),
        })
    }

    /// Refuses if the plugin's process is another one than when this life began.
    pub(super) async fn check_life(&self) -> Result<(), DriverError> {
        if !self.life.is_cancelled() && self.client.mark().await == self.mark {
            return Ok(());
        }
        if !self.life.is_cancelled() {
            tracing::info!(
                driver = self.name,
                "a driver's process was restarted or has ended"
            );
            self.life.cancel();
        }
        Err(DriverError::Restarted {
            driver: self.name.clone(),
        })
    }

    /// Returns a call's failure in the words of drivers.
    pub(super) fn failure(&self, error: &CallError) -> DriverError {
        if error.is_gone() {
            self.life.cancel();
        }
        let driver = self.name.clone();
        let reason = brief(error.to_string());
        match error {
            CallError::Failed { .. } => DriverError::Refused { driver, reason },
            CallError::NotImplemented { .. }
            | CallError::TooLarge { .. }
            | CallError::Malformed { .. } => DriverError::Protocol { driver, reason },
            CallError::Unreachable { .. }
            | CallError::Deadline { .. }
            | CallError::Broken { .. }
            | CallError::Untrusted { .. }
            | CallError::LeftAlone { .. } => DriverError::Unreachable { driver, reason },
        }
    }

    /// Says what was wrong with the answer to a method.
    pub(super) fn broke(&self, method: &str, wrong: &str) -> DriverError {
        DriverError::Protocol {
            driver: self.name.clone(),
            reason: brief(format!("{}: {wrong}", self.full(method))),
        }
    }

    fn full(&self, method: &str) -> String {
        format!("{}.{method}", self.protocol)
    }

    fn doubts(&self) -> MutexGuard<'_, BTreeSet<(&'static str, String)>> {
        // Every change is one insert or remove: nobody who panicked left it half done.
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a refusal says that what is to be made is there. libnetwork has no code for it, only such words.
pub(super) fn says_it_is_there(message: &str) -> bool {
    let message = message.to_lowercase();
    let words = ["already exist", "already joined", "already allocated"];
    words.iter().any(|words| message.contains(words))
}

/// How much of what a plugin says ends up in an error, in bytes: it may have said megabytes.
const REASON_MAX: usize = 1000;

/// Cuts a text that is too long for a person.
pub(super) fn brief(mut text: String) -> String {
    if text.len() > REASON_MAX {
        let fits = (0..=REASON_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(fits.unwrap_or_default());
        text.push('…');
    }
    text
}

fn body(request: &impl Serialize) -> String {
    serde_json::to_string(request).expect("our own types have string keys and no failing fields")
}
