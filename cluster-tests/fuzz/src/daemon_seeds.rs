//! As [`seeds`](crate::seeds), of what only the daemon reads: what is said on streams, and certificates.

use std::{fs, io, path::Path};

use weft::{
    core::{
        model::Name,
        wire::{
            codec,
            versions::{NEWEST, OLDEST},
        },
    },
    runtime::{
        join::{JoinRequest, VERSION},
        streams::Service,
    },
};

use crate::{
    authority::{authority, credentials, node_key, signed_part},
    message::Request,
    seeds::DIRECTORY,
    world::{self, peer},
};

/// Writes the seeds if that is asked for.
pub fn write_if_asked() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let directory = Path::new(&directory);
        let written = write_frames(&directory.join("frames"))
            .and_then(|()| write_certificates(&directory.join("certificates")));
        written.expect("the seeds can be written");
    }
}

/// What a newcomer and a member say on a stream.
fn write_frames(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let join = JoinRequest {
        version: VERSION,
        node: peer(0),
        name: Name::new("n1").expect("a name"),
        csr_der: node_key().csr(peer(0)).expect("a request can be made"),
        secret: [7; 16],
        listen: ([0, 0, 0, 0], 9_338).into(),
    };
    let said = [
        (Service::Join, codec::encode(&join)),
        (Service::Keys, vec![0]),
        (Service::Raft, vec![1, 0]),
        (Service::Propose, vec![1]),
        (Service::Sync, Request::Members.encode()),
    ];
    for (service, body) in said {
        let len = u32::try_from(body.len()).expect("it is short");
        let mut input = vec![NEWEST - OLDEST, 200, 0, NEWEST, service as u8];
        input.extend(len.to_be_bytes());
        input.extend(body);
        fs::write(directory.join(service.to_string()), input)?;
    }
    Ok(())
}

/// What an authority signs, and what it is asked to sign.
fn write_certificates(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let ca = authority();
    let (_, cross) = ca.successor(world::CLUSTER).expect("one can be made");
    let request = node_key().csr(peer(0)).expect("a request can be made");
    let kept = credentials(peer(0));
    let said = [
        ("node", 2, signed_part(&kept.cert_der)),
        ("authority", 2, signed_part(&ca.cert_der)),
        ("successor", 2, signed_part(&cross)),
        ("request", 1, signed_part(&request)),
        ("whole", 0, &request),
        ("kept", 0, &kept.to_bytes()),
    ];
    for (name, signer, bytes) in said {
        let input = [&[signer, 0], bytes].concat();
        fs::write(directory.join(name), input)?;
    }
    Ok(())
}
