//! All links of one worker: ours to the peers, by node, and all of them, theirs to us too, by number.

use std::rc::Rc;

use gyre_cluster::coordinator::LinkId;
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_storage::Hlc;

use crate::peer::link::{FarEnd, Link};

/// The links of a worker and which of them have something to send.
#[derive(Default)]
pub struct Outboxes {
    by_node: Links<NodeId>,
    /// Ours and theirs.
    by_id: Links<LinkId>,
    dirty: Vec<Rc<Link>>,
    last_link: u64,
}

/// Links by a key, ascending: found by bisection, which for so few beats hashing.
struct Links<K>(Vec<(K, Rc<Link>)>);

impl<K> Default for Links<K> {
    fn default() -> Self {
        Links(Vec::new())
    }
}

impl<K: Ord + Copy> Links<K> {
    fn place(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |&(key, _)| key)
    }

    fn get(&self, key: K) -> Option<&Rc<Link>> {
        let place = self.place(key).ok()?;
        self.0.get(place).map(|(_, link)| link)
    }

    /// Puts `link` under `key`. Answers the one it replaces.
    fn insert(&mut self, key: K, link: Rc<Link>) -> Option<Rc<Link>> {
        let older = self.remove(key);
        let place = self.place(key).unwrap_or_else(|place| place);
        self.0.insert(place, (key, link));
        older
    }

    fn remove(&mut self, key: K) -> Option<Rc<Link>> {
        let place = self.place(key).ok()?;
        Some(self.0.remove(place).1)
    }

    fn all(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.0.iter().map(|(_, link)| link)
    }
}

impl Links<NodeId> {
    fn leading_to(&self, far_end: FarEnd) -> Option<&Rc<Link>> {
        self.get(far_end.node).filter(|link| link.far_end() == far_end)
    }
}

impl Outboxes {
    /// Takes our link to a node into use. Answers whether that closed an older one.
    pub fn connect(&mut self, link: Rc<Link>) -> bool {
        let older = self.by_node.insert(link.far_end().node, link);
        if let Some(older) = &older {
            older.close();
        }
        older.is_some()
    }

    /// Takes our link to a node out of use, unless another has replaced it. Answers whether it was the one in use.
    pub fn disconnect(&mut self, link: &Rc<Link>) -> bool {
        let node = link.far_end().node;
        let is_in_use = self.by_node.get(node).is_some_and(|current| Rc::ptr_eq(current, link));
        if is_in_use {
            self.by_node.remove(node);
        }
        is_in_use
    }

    /// Closes our link to `node`: its read task ends, takes it out of use, and dials anew.
    pub fn close(&self, node: NodeId) {
        if let Some(link) = self.by_node.get(node) {
            link.close();
        }
    }

    /// Closes every link to `node`, made by either of us.
    pub fn close_every(&self, node: NodeId) {
        self.by_id.all().filter(|link| link.far_end().node == node).for_each(|link| link.close());
    }

    /// Whether there is a link of ours to `node`.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.by_node.get(node).is_some()
    }

    /// Whether there is any link of ours.
    pub fn is_any_connected(&self) -> bool {
        !self.by_node.0.is_empty()
    }

    /// To whom there are links of ours.
    pub fn connected(&self) -> Vec<NodeId> {
        self.by_node.0.iter().map(|(node, _)| *node).collect()
    }

    /// Numbers a link, made by either of us, so that what comes by it can be answered by it. No number is given twice.
    pub fn number(&mut self, link: Rc<Link>) -> LinkId {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        self.by_id.insert(id, link);
        id
    }

    /// A numbered link has ended.
    pub fn forget(&mut self, link: LinkId) {
        self.by_id.remove(link);
    }

    /// Queues `message` for `to`; `false` if it will not be sent.
    pub fn send(&mut self, to: NodeId, message: &Message<'_>, clock: Hlc) -> bool {
        let Some(link) = self.by_node.get(to) else { return false };
        push(link, message, clock, &mut self.dirty)
    }

    /// Queues an answer to what came by the link of that number; dropped if the link is gone.
    ///
    /// It goes by our own link to whoever asked, if there is one: what we ask and what we answer then share one write here
    /// and one read there. (That each side's link carries all it says, and nothing comes back by it, is how Cassandra's
    /// nodes talk, too.)
    pub fn respond(&mut self, link: LinkId, message: &Message<'_>, clock: Hlc) {
        let Some(theirs) = self.by_id.get(link) else { return };
        let ours = self.by_node.leading_to(theirs.far_end()).filter(|ours| !ours.is_closed());
        push(ours.unwrap_or(theirs), message, clock, &mut self.dirty);
    }

    /// Whether what we ask by our own link is answered by `theirs`, as far as we know: both lead to one far end.
    pub fn is_answered_by(&self, theirs: &Link) -> bool {
        self.by_node.leading_to(theirs.far_end()).is_some()
    }

    /// Queues `message` for every connected peer.
    pub fn broadcast(&mut self, message: &Message<'_>, clock: Hlc) {
        for link in self.by_node.all() {
            push(link, message, clock, &mut self.dirty);
        }
    }

    /// Writes to every link that has something to send, once.
    pub fn flush(&mut self) {
        for link in self.dirty.drain(..) {
            link.flush();
        }
    }

    /// Closes all links.
    pub fn close_all(&self) {
        self.by_id.all().for_each(|link| link.close());
    }
}

fn push(link: &Rc<Link>, message: &Message<'_>, clock: Hlc, dirty: &mut Vec<Rc<Link>>) -> bool {
    let queued = link.push(message, clock);
    if queued && link.mark_dirty() {
        dirty.push(Rc::clone(link));
    }
    queued
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gyre_cluster::message::RequestId;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PEER: FarEnd = FarEnd { node: NodeId(2), instance: 7, worker: 1 };

    /// A link to `far_end`, and the socket at its other end.
    async fn link_to(far_end: FarEnd) -> (Rc<Link>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_, write) = near.unwrap().into_split();
        (Link::new(far_end, write, Arc::default()), far.unwrap().0)
    }

    /// Which of two links carries the answer to what came by `theirs`, when our own leads to `ours`.
    async fn answers_by_ours(ours: FarEnd, is_open: bool) -> bool {
        let mut outboxes = Outboxes::default();
        let (own, mut by_ours) = link_to(ours).await;
        let (accepted, mut by_theirs) = link_to(PEER).await;
        outboxes.connect(Rc::clone(&own));
        let id = outboxes.number(accepted);
        if !is_open {
            own.close();
        }
        let answer = Message::Applied { request: RequestId(1), digest: None };
        outboxes.respond(id, &answer, Hlc::default());
        outboxes.flush();
        // What a closed link gives to read is an error.
        tokio::select! {
            Ok(_) = by_ours.read_u8() => true,
            Ok(_) = by_theirs.read_u8() => false,
        }
    }

    #[tokio::test]
    async fn answers_go_by_our_own_link_to_whoever_asked() {
        assert!(answers_by_ours(PEER, true).await);
    }

    #[tokio::test]
    async fn answers_to_us_come_by_their_link_from_where_ours_leads() {
        let mut outboxes = Outboxes::default();
        let (theirs, _socket) = link_to(PEER).await;
        assert!(!outboxes.is_answered_by(&theirs), "nothing is asked");
        let (ours, _socket) = link_to(FarEnd { worker: 2, ..PEER }).await;
        outboxes.connect(ours);
        assert!(!outboxes.is_answered_by(&theirs), "another worker is asked, and answers");
        let (ours, _socket) = link_to(PEER).await;
        outboxes.connect(ours);
        assert!(outboxes.is_answered_by(&theirs));
    }

    #[tokio::test]
    async fn answers_go_back_by_their_link_if_ours_leads_elsewhere_or_is_closed() {
        assert!(!answers_by_ours(FarEnd { worker: 2, ..PEER }, true).await);
        assert!(!answers_by_ours(FarEnd { instance: 8, ..PEER }, true).await);
        assert!(!answers_by_ours(FarEnd { node: NodeId(3), ..PEER }, true).await);
        assert!(!answers_by_ours(PEER, false).await);
    }
}
