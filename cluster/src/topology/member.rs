//! A member: what the topology says of one node.

use std::fmt;

use crate::node::NodeId;
use crate::ring::{RingMember, VNODES_MAX};
use crate::wire::{Malformed, Reader, put_option, put_text};

/// The most bytes of a host name or address.
pub const HOST_BYTES_MAX: usize = 255;
/// The most bytes of a rack's name and of a build version.
pub const LABEL_BYTES_MAX: usize = 64;

/// Where to dial: a host name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A host name, or an IPv4 or IPv6 address without brackets. 1 to [`HOST_BYTES_MAX`] bytes.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint `host:port`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Endpoint {
        Endpoint { host: host.into(), port }
    }

    pub(crate) fn is_valid(&self) -> bool {
        (1..=HOST_BYTES_MAX).contains(&self.host.len())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.host);
        out.extend_from_slice(&self.port.to_le_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Endpoint, Malformed> {
        let endpoint = Endpoint { host: reader.text(HOST_BYTES_MAX)?, port: reader.u16()? };
        if endpoint.is_valid() { Ok(endpoint) } else { Err(Malformed) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a member does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// Coordinates requests and owns nothing yet: admitted after the cluster had formed.
    Joining,
    /// Owns its share of the ring.
    Active,
    /// Has left for good. Kept so that an older document does not bring it back.
    Left,
}

/// One node as the topology knows it.
///
/// Members of equal id are ordered by (incarnation, revision), then by everything else, so that the greatest of any
/// two is the same whichever comes first: that is how documents merge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// The node's incarnation: greater with each start of its process.
    pub incarnation: u64,
    /// Counts the changes of this entry within an incarnation.
    pub revision: u64,
    /// What it does.
    pub state: MemberState,
    /// Where Redis clients dial it.
    pub client_addr: Endpoint,
    /// Where peers dial it.
    pub peer_addr: Endpoint,
    /// What fails together with it. `None` stands for a rack of its own.
    pub rack: Option<String>,
    /// Its weight on the ring, at most [`VNODES_MAX`].
    pub vnodes: u32,
    /// The version of Gyre it runs.
    pub build: String,
}

impl Member {
    /// The member as the ring sees it.
    #[must_use]
    pub fn ring_member(&self) -> RingMember {
        RingMember { id: self.id, rack: self.rack.clone(), vnodes: self.vnodes }
    }

    /// Whether all parts are within their bounds.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_label = |text: &str| text.len() <= LABEL_BYTES_MAX;
        self.id.0 != 0
            && self.client_addr.is_valid()
            && self.peer_addr.is_valid()
            && self.rack.as_deref().is_none_or(|rack| !rack.is_empty() && is_label(rack))
            && is_label(&self.build)
            && self.vnodes <= VNODES_MAX
    }

    /// Whether the ring depends on a difference between `self` and `other`.
    pub(crate) fn places_differently(&self, other: &Member) -> bool {
        let is_active = |member: &Member| member.state == MemberState::Active;
        let is_either = is_active(self) || is_active(other);
        is_either && (self.state, &self.rack, self.vnodes) != (other.state, &other.rack, other.vnodes)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.id.0, self.incarnation, self.revision] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(match self.state {
            MemberState::Joining => 0,
            MemberState::Active => 1,
            MemberState::Left => 2,
        });
        self.client_addr.encode(out);
        self.peer_addr.encode(out);
        put_option(out, self.rack.as_deref(), put_text);
        out.extend_from_slice(&self.vnodes.to_le_bytes());
        put_text(out, &self.build);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Member, Malformed> {
        let member = Member {
            id: NodeId(reader.u64()?),
            incarnation: reader.u64()?,
            revision: reader.u64()?,
            state: match reader.u8()? {
                0 => MemberState::Joining,
                1 => MemberState::Active,
                2 => MemberState::Left,
                _ => return Err(Malformed),
            },
            client_addr: Endpoint::decode(reader)?,
            peer_addr: Endpoint::decode(reader)?,
            rack: reader.option(|reader| reader.text(LABEL_BYTES_MAX))?,
            vnodes: reader.u32()?,
            build: reader.text(LABEL_BYTES_MAX)?,
        };
        if member.is_valid() { Ok(member) } else { Err(Malformed) }
    }
}
