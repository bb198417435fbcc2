//! Whatever an operator sends: no panic, no more bytes than the offer says, and nothing but what its version is of.
//!
//! The input is cut into messages, each read as the wire has them; and what a delta makes of it, laid over what came before,
//! must come out again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use relay_proto::{Assembly, Delta, Message as _, ToRelay, Version, to_relay};

fuzz_target!(|bytes: &[u8]| {
    let mut active = (Version::of(b""), Bytes::new());
    let mut arriving: Option<Assembly> = None;
    let mut rest = bytes;
    while let [long, short, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*short, *long])).min(more.len());
        let (message, more) = more.split_at(length);
        rest = more;
        let message = ToRelay::decode(message).ok().and_then(|message| message.message);
        arriving = match (message, arriving.take()) {
            (Some(to_relay::Message::Offer(offer)), _) => {
                Assembly::new(offer, Some((active.0, &active.1))).ok()
            }
            (Some(to_relay::Message::Parts(parts)), Some(mut assembly)) => {
                assembly.add(parts.parts).is_ok().then_some(assembly)
            }
            (_, assembly) => assembly,
        };
        if let Some(whole) = arriving.take_if(|assembly| assembly.is_complete())
            && let Ok((version, encoded)) = whole.finish()
        {
            assert_eq!(version, Version::of(&encoded));
            active = (version, encoded);
        }
    }
    let (base, new) = bytes.split_at(bytes.len() / 2);
    let (base, new) = (Bytes::copy_from_slice(base), Bytes::copy_from_slice(new));
    let base = (Version::of(&base), &base);
    let delta = Delta::new((Version::of(&new), &new), Some(base));
    let mut assembly = Assembly::new(delta.offer(1), Some(base)).expect("it was just made");
    let mut index = 1;
    while let Some(parts) = delta.more(index) {
        assembly.add(parts.parts).expect("it was just made");
        index += 1;
    }
    assert_eq!(assembly.finish().expect("it was just made").1, new);
});
