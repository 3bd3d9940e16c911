//! Bytes that are wrong, and bytes that are many.

use crate::support::{Client, Cluster, Reply, eventually_equals};

#[test]
fn hostile_bytes_get_redis_errors_and_a_closed_connection() {
    let cluster = Cluster::start(1);
    let cases: [(&[u8], &str); 11] = [
        (b"*1000000000\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*many\r\n", "invalid multibulk length"),
        (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
        (b"SET k \"open\r\n", "unbalanced quotes in request"),
        (&[b'*'; 70_000], "too big mbulk count string"),
        (&[b'x'; 70_000], "too big inline request"),
    ];
    for (bytes, error) in cases {
        let mut client = cluster.client(0);
        // The command before it is still answered. The server may close before it has read all of it.
        client.send_raw(b"*1\r\n$4\r\nPING\r\n").unwrap();
        let _ = client.send_raw(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(30)]);
        let answer = String::from_utf8(client.rest().unwrap()).unwrap();
        assert_eq!(answer, format!("+PONG\r\n-ERR Protocol error: {error}\r\n"), "{shown}");
    }
    assert_eq!(cluster.client(0).run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn a_peer_port_survives_bytes_of_strangers() {
    let cluster = Cluster::start(2);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"*1\r\n$4\r\nPING\r\n", &[0; 100_000]] {
        let mut stranger = Client::try_connect(("127.0.0.1", cluster.nodes[0].peer_port)).unwrap();
        // It may hang up while we still send, and says nothing that matters.
        let _ = stranger.send_raw(bytes);
        stranger.finish_sending();
        let _ = stranger.rest();
    }
    assert_eq!(cluster.client(1).run("SET k v"), Reply::ok());
    assert_eq!(cluster.client(0).run("GET k"), Reply::bulk("v"));
}

#[test]
fn unknown_commands_and_wrong_arities_keep_the_connection() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(0);
    assert!(
        client
            .run("NOSUCH a b")
            .error()
            .starts_with("ERR unknown command 'NOSUCH', with args beginning with: ")
    );
    assert_eq!(client.run("GET"), Reply::Error("ERR wrong number of arguments for 'get' command".into()));
    assert!(client.run("CONFIG NOSUCH").error().starts_with("ERR unknown subcommand 'NOSUCH'"));
    assert!(client.run("LPUSH list x").error().starts_with("ERR unknown command"));
    client.send_raw(b"\r\n\r\nPING inline\r\nSET inline 'a b'\r\n").unwrap();
    assert_eq!(client.receive().unwrap(), Reply::bulk("inline"));
    assert_eq!(client.receive().unwrap(), Reply::ok());
    assert_eq!(client.run("GET inline"), Reply::bulk("a b"));
    assert_eq!(client.run("QUIT"), Reply::ok());
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn a_command_in_many_pieces_is_one_command() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client(0);
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
        client.send_raw(&[*byte]).unwrap();
    }
    assert_eq!(client.receive().unwrap(), Reply::ok());
    assert_eq!(client.receive().unwrap(), Reply::bulk("a\r\nb"));
}

#[test]
fn values_of_64_mib_pass_between_nodes() {
    let cluster = Cluster::start(3);
    let (mut writer, mut reader) = (cluster.client(0), cluster.client(1));
    let value: Vec<u8> = (0..64_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(writer.call(&[b"SET", b"large", &value]), Reply::ok());
    assert_eq!(writer.run("STRLEN large"), Reply::Integer(64 << 20));
    let read = reader.call(&[b"GET", b"large"]);
    assert!(read == Reply::Bulk(value), "the value differs");
    assert_eq!(reader.run("SET small v"), Reply::ok());
    assert_eq!(reader.run("DEL large"), Reply::Integer(1));
    eventually_equals("the nodes stay together", &0, || cluster.nodes[0].sees_down());
}
