//! Who follows the activations of plugins hears of each, those that already are first (P10).

use tokio::sync::watch;

use super::{Capability, Getter, Plugin};

/// Plugins with a capability, in the order of their activation. One that moved twice meanwhile is told once.
#[derive(Debug)]
pub struct Activations {
    getter: Getter,
    changed: watch::Receiver<u64>,
    capability: Capability,
    told: u64,
}

impl Activations {
    pub(super) fn new(getter: Getter, capability: Capability) -> Self {
        Self {
            changed: getter.activated.subscribe(),
            getter,
            capability,
            told: 0,
        }
    }

    /// Waits for the next one. The getter lives in here, so it never ends.
    pub async fn next(&mut self) -> Plugin {
        loop {
            self.changed.mark_unchanged();
            if let Some(plugin) = self.try_next() {
                return plugin;
            }
            // Our own getter holds the sender, so this cannot fail.
            self.changed.changed().await.unwrap_or_default();
        }
    }

    /// Returns the next one if there is one already.
    pub fn try_next(&mut self) -> Option<Plugin> {
        let (told, capability) = (self.told, self.capability);
        let (number, plugin) = self.getter.with_state(|state| {
            let later = state
                .active
                .values()
                .filter(|(number, plugin)| *number > told && plugin.can(capability));
            later.min_by_key(|(number, _)| *number).cloned()
        })?;
        self.told = number;
        Some(plugin)
    }
}
