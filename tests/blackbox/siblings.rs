//! VC.GET, VC.SET, VC.DEL: replies, errors, other commands on such keys, nodes that die.

use crate::support::cart::{Happening, Side, Stage, play};
use crate::support::{Client, Cluster, Reply};

/// The context and the values of a key.
fn get(client: &mut Client, key: &str) -> (String, Vec<String>) {
    let [context, values] =
        <[Reply; 2]>::try_from(client.run(&format!("VC.GET {key}")).array()).expect("an array of two");
    (context.text(), values.array().into_iter().map(Reply::text).collect())
}

fn set(client: &mut Client, key: &str, context: &str, value: &str) -> Reply {
    client.call(&[b"VC.SET", key.as_bytes(), context.as_bytes(), value.as_bytes()])
}

fn error(client: &mut Client, arguments: &[&str]) -> String {
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    client.call(&arguments).error().to_string()
}

#[test]
fn values_stand_side_by_side_until_a_context_has_seen_them() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    assert_eq!(get(&mut clients[0], "k"), (String::new(), vec![]));
    assert_eq!(set(&mut clients[0], "k", "", "a"), Reply::ok());
    assert_eq!(set(&mut clients[1], "k", "", "b"), Reply::ok());
    let (context, values) = get(&mut clients[2], "k");
    assert_eq!(values, ["b", "a"]);
    assert_eq!(set(&mut clients[2], "k", "", "c"), Reply::ok());
    assert_eq!(set(&mut clients[0], "k", &context, "ab"), Reply::ok());
    assert_eq!(get(&mut clients[1], "k").1, ["ab", "c"]);
    assert_eq!(set(&mut clients[0], "k", &context, "again"), Reply::ok());
    let (context, values) = get(&mut clients[1], "k");
    assert_eq!(values, ["again", "ab", "c"], "a context used twice has not seen what was written between");
    assert_eq!(clients[0].run(&format!("VC.DEL k {context}")), Reply::Integer(3));
    assert_eq!(clients[0].run(&format!("VC.DEL k {context}")), Reply::Integer(0));
    assert_eq!(get(&mut clients[2], "k").1, Vec::<String>::new());
    assert_eq!(clients[1].run("EXISTS k"), Reply::Integer(0));
}

#[test]
fn values_expire_each_by_itself() {
    let cluster = Cluster::start(3);
    let client = &mut cluster.client(0);
    assert_eq!(client.call(&[b"VC.SET", b"k", b"", b"soon", b"PX", b"300"]), Reply::ok());
    assert_eq!(client.call(&[b"vc.set", b"k", b"", b"later", b"ex", b"1000"]), Reply::ok());
    let ttl = client.run("TTL k").integer();
    assert!((990..=1000).contains(&ttl), "{ttl}");
    crate::support::eventually_equals("the short one expires", &vec!["later".to_string()], || {
        get(&mut cluster.client(1), "k").1
    });
    for (arguments, text) in [
        (&["VC.SET", "k", "", "v", "EX", "0"][..], "ERR invalid expire time in 'vc.set' command"),
        (&["VC.SET", "k", "", "v", "NX"], "ERR syntax error"),
        (&["VC.SET", "k", "", "v", "EX"], "ERR syntax error"),
        (&["VC.SET", "k", "", "v", "EX", "1", "PX", "1"], "ERR syntax error"),
        (&["VC.SET", "k", ""], "ERR wrong number of arguments for 'vc.set' command"),
        (&["VC.DEL", "k"], "ERR wrong number of arguments for 'vc.del' command"),
    ] {
        assert_eq!(error(client, arguments), text, "{arguments:?}");
    }
}

#[test]
fn a_context_that_is_not_this_keys_is_refused_by_name() {
    let cluster = Cluster::start(3);
    let client = &mut cluster.client(0);
    set(client, "k", "", "v");
    let (context, _) = get(client, "k");
    let damaged = "BADCONTEXT the context is damaged, truncated or forged, or of another cluster";
    let foreign = "BADCONTEXT the context belongs to another key or database";
    let last = if context.ends_with('A') { "Q" } else { "A" };
    let bent = format!("{}{last}", &context[..context.len() - 1]);
    for context in ["x", "not a context", &context[..20], &bent, &"A".repeat(100_000)] {
        assert_eq!(error(client, &["VC.SET", "k", context, "v"]), damaged, "{context:?}");
        assert_eq!(error(client, &["VC.DEL", "k", context]), damaged, "{context:?}");
    }
    assert_eq!(error(client, &["VC.SET", "other", &context, "v"]), foreign);
    client.run("SELECT 1");
    assert_eq!(error(client, &["VC.SET", "k", &context, "v"]), foreign);
    let elsewhere = Cluster::start(1);
    let stranger = &mut elsewhere.client(0);
    assert_eq!(error(stranger, &["VC.SET", "k", &context, "v"]), damaged);
    let long = vec![b'x'; (8 << 20) + 1];
    let reply = stranger.call(&[b"VC.SET", b"k", b"", &long]);
    assert_eq!(reply.error(), "ERR value exceeds the maximum size of a sibling (8 MiB)");
    assert_eq!(get(client, "k").1, Vec::<String>::new(), "database 1 has none");
}

#[test]
fn plain_commands_take_the_newest_value_and_replace_all() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    let client = &mut clients[0];
    let fill = |client: &mut Client| {
        client.run("DEL k");
        set(client, "k", "", "10");
        set(client, "k", "", "20");
        assert_eq!(get(client, "k").1, ["20", "10"]);
    };
    fill(client);
    for (command, reply) in [
        ("GET k", Reply::bulk("20")),
        ("STRLEN k", Reply::Integer(2)),
        ("TYPE k", Reply::Simple("string".into())),
        ("OBJECT ENCODING k", Reply::bulk("int")),
        ("TTL k", Reply::Integer(-1)),
        ("EXISTS k", Reply::Integer(1)),
        ("MGET k absent", Reply::Array(vec![Reply::bulk("20"), Reply::Null])),
        ("COPY k copied", Reply::Integer(1)),
        ("GET copied", Reply::bulk("20")),
    ] {
        assert_eq!(client.run(command), reply, "{command}");
    }
    assert_eq!(get(client, "k").1, ["20", "10"], "reading changes nothing");
    for (command, reply, left) in [
        ("SET k plain", Reply::ok(), Some("plain")),
        ("DEL k", Reply::Integer(1), None),
        ("GETDEL k", Reply::bulk("20"), None),
        ("APPEND k x", Reply::Integer(3), Some("20x")),
        ("INCR k", Reply::Integer(21), Some("21")),
        ("EXPIRE k 100", Reply::Integer(1), Some("20")),
        ("GETSET k new", Reply::bulk("20"), Some("new")),
    ] {
        fill(client);
        let (context, _) = get(client, "k");
        assert_eq!(client.run(command), reply, "{command}");
        assert_eq!(get(client, "k").1, left.into_iter().collect::<Vec<_>>(), "{command}");
        set(client, "k", &context, "late");
        let seen = get(client, "k").1;
        let beside: Vec<&str> = ["late"].into_iter().chain(left).collect();
        assert_eq!(seen, beside, "after {command} the old context has not seen what is there");
    }
    fill(client);
    assert_eq!(client.run("RENAME k moved"), Reply::ok());
    assert_eq!((get(client, "k").1.len(), client.run("GET moved")), (0, Reply::bulk("20")));
    fill(client);
    client.run("FLUSHDB");
    assert_eq!(get(client, "k").1.len(), 0);
}

#[test]
fn a_plain_value_is_replaced_by_who_has_seen_it_and_stands_beside_otherwise() {
    let cluster = Cluster::start(3);
    let mut clients = cluster.clients();
    clients[0].run("SET k plain");
    let (context, values) = get(&mut clients[1], "k");
    assert_eq!(values, ["plain"]);
    set(&mut clients[2], "k", "", "blind");
    assert_eq!(get(&mut clients[0], "k").1, ["blind", "plain"]);
    set(&mut clients[1], "k", &context, "seen");
    assert_eq!(get(&mut clients[0], "k").1, ["seen", "blind"]);
    clients[0].run("INCRBY n 5");
    let (context, values) = get(&mut clients[1], "n");
    assert_eq!(values, ["5"], "a counter is its sum");
    set(&mut clients[1], "n", &context, "7");
    assert_eq!(
        (get(&mut clients[2], "n").1, clients[0].run("INCR n")),
        (vec!["7".into()], Reply::Integer(8))
    );
}

#[test]
fn the_reply_has_one_shape_in_both_protocols_and_the_table_describes_the_commands() {
    let cluster = Cluster::start(1);
    let client = &mut cluster.client(0);
    set(client, "k", "", "v");
    let two = client.run("VC.GET k");
    client.send_raw(b"HELLO 3\r\n").unwrap();
    // A map, which this client does not read; the next reply begins behind its last entry.
    let mut ask = || client.send_raw(b"PING\r\nVC.GET k\r\n").unwrap();
    ask();
    loop {
        match client.receive() {
            Ok(Reply::Simple(text)) if text == "PONG" => break,
            _ => {}
        }
    }
    assert_eq!(client.receive().unwrap(), two);
    let client = &mut cluster.client(0);
    assert_eq!(client.run("COMMAND GETKEYS VC.SET k c v"), Reply::Array(vec![Reply::bulk("k")]));
    let docs = client.run("COMMAND DOCS vc.set vc.get vc.del").array();
    assert_eq!(docs.len(), 6);
    let info = client.run("COMMAND INFO vc.get").array();
    assert_eq!(info[0].clone().array()[1], Reply::Integer(2));
}

/// Killed processes in place of a broken network: while one side lives the other does not, and neither sees what the
/// other wrote.
struct Killed {
    cluster: Cluster,
    is_broken: bool,
    side: Side,
}

impl Killed {
    fn switch(&mut self, side: Side) {
        let (up, down): (&[usize], &[usize]) = match side {
            Side::Client => (&[0, 1, 2], &[]),
            Side::Left => (&[0], &[1, 2]),
            Side::Right => (&[1, 2], &[0]),
        };
        for node in down {
            if self.cluster.nodes[*node].is_running() {
                self.cluster.nodes[*node].kill();
            }
        }
        for node in up {
            if !self.cluster.nodes[*node].is_running() {
                self.cluster.nodes[*node].restart();
                self.cluster.nodes[*node].client_soon();
            }
        }
        match side {
            Side::Client => self.cluster.wait_formed(),
            _ => self.cluster.wait_noticed(down),
        }
        self.side = side;
    }
}

impl Stage for Killed {
    fn client(&mut self, side: Side) -> Client {
        if self.is_broken && side != self.side {
            self.switch(side);
        }
        let mut client = self.cluster.client(if side == Side::Right { 1 } else { 0 });
        if self.is_broken {
            // A side of one node has no quorum of three.
            assert_eq!(client.run("CONSISTENCY ONE"), Reply::ok());
        }
        client
    }

    fn happens(&mut self, happening: Happening) {
        self.is_broken = happening == Happening::Breaks;
        if !self.is_broken {
            self.switch(Side::Client);
        }
    }
}

#[test]
fn the_shopping_cart_of_the_documentation_loses_nothing() {
    let cluster = Cluster::start(3);
    play(&mut Killed { cluster, is_broken: false, side: Side::Client });
}

#[test]
fn siblings_survive_a_restart_of_all_nodes_and_old_contexts_stay_good() {
    let mut cluster = Cluster::start(3);
    set(&mut cluster.client(0), "k", "", "a");
    set(&mut cluster.client(1), "k", "", "b");
    let before = get(&mut cluster.client(2), "k");
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.restart();
    }
    cluster.wait_formed();
    let client = &mut cluster.client(1);
    assert_eq!(get(client, "k"), before);
    assert_eq!(set(client, "k", &before.0, "merged"), Reply::ok());
    assert_eq!(get(client, "k").1, ["merged"]);
    for count in 0..30 {
        set(client, "many", "", &count.to_string());
    }
    assert_eq!(get(client, "many").1.len(), 30);
    let replicas = client.run("GYRE REPLICAS many");
    assert_eq!(replicas.field("agree"), Some(&Reply::Integer(1)));
}
