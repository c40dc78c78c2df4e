//! Nodes of several versions on streams: each two speak the highest that both do.

use bytes::Bytes;

use super::{
    Dialer, Limits, Service, Tls,
    testing::{Cluster, Listening, PATIENCE, raw},
};
use crate::core::wire::versions::{NEWEST, OLDEST};

#[tokio::test]
async fn each_two_speak_the_highest_version_that_both_do() {
    let cluster = Cluster::new(1);
    let speaking = |node, newest| Tls::speaking(newest, &cluster.credentials(node)).unwrap();

    for (theirs, ours) in [
        (OLDEST, OLDEST),
        (OLDEST, NEWEST),
        (NEWEST, OLDEST),
        (NEWEST, NEWEST),
    ] {
        let server = Listening::echo(speaking(2, theirs), Limits::default()).await;
        let caller = speaking(5, ours);

        let agreed = raw(&caller, &server).await;
        let dialer = Dialer::new(caller, &Limits::default());
        let request = Bytes::from_static(b"x");
        let answer = dialer.call(
            server.tls.node(),
            server.addr,
            Service::Raft,
            request,
            PATIENCE,
        );

        assert_eq!(answer.await.unwrap(), "x");
        let protocol = agreed.get_ref().1.alpn_protocol();
        assert_eq!(super::tls::version(protocol), theirs.min(ours));
    }
}
