//! The null driver: sandboxes with no more than a loopback. It connects nothing and tells nobody.

use std::collections::BTreeMap;

use futures_util::future::{self, BoxFuture};

use super::{Capability, Driver, DriverError, Joined, Scope, TableEvent, TableInterest};
use crate::core::model::{
    EndpointId, EndpointRecord, Key, NetworkId, NetworkRecord, Prefix, TableName, Value,
};

/// The driver `null`. It keeps no state, so every call succeeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

fn done<T: Send + Default + 'static>() -> BoxFuture<'static, Result<T, DriverError>> {
    Box::pin(future::ready(Ok(T::default())))
}

impl Driver for Null {
    fn capability(&self) -> Capability {
        Capability {
            data_scope: Scope::Local,
            connectivity_scope: Scope::Local,
        }
    }

    fn check_options(&self, _options: &BTreeMap<String, String>) -> Result<(), DriverError> {
        Ok(())
    }

    fn create_network<'a>(
        &'a self,
        _network: &'a NetworkRecord,
    ) -> BoxFuture<'a, Result<Vec<TableInterest>, DriverError>> {
        done()
    }

    fn delete_network(&self, _network: NetworkId) -> BoxFuture<'_, Result<(), DriverError>> {
        done()
    }

    fn create_endpoint<'a>(
        &'a self,
        _endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Vec<Prefix>, DriverError>> {
        done()
    }

    fn delete_endpoint(
        &self,
        _network: NetworkId,
        _endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        done()
    }

    fn join<'a>(
        &'a self,
        _endpoint: &'a EndpointRecord,
    ) -> BoxFuture<'a, Result<Joined, DriverError>> {
        done()
    }

    fn leave(
        &self,
        _network: NetworkId,
        _endpoint: EndpointId,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        done()
    }

    fn event_notify<'a>(
        &'a self,
        _events: &'a [TableEvent],
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        done()
    }

    fn decode_table_entry(
        &self,
        _table: &TableName,
        _key: &Key,
        _value: &Value,
    ) -> Option<(EndpointId, BTreeMap<String, String>)> {
        None
    }

    fn inspect(&self, _network: NetworkId) -> BoxFuture<'_, serde_json::Value> {
        Box::pin(future::ready(serde_json::Value::Null))
    }
}
