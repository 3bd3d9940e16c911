//! What a request and a reply cost: ours and redis-protocol's.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gyre_protocol::{Limits, Parsed, Parser, Resp, Writer, glob, lookup, resolve};
use redis_protocol::resp2;

/// Requests in one read buffer, as a pipelining client sends them.
const PIPELINE: usize = 16;

/// redis-benchmark's requests with `-d 64`.
fn streams() -> [(&'static str, Vec<u8>); 3] {
    let set = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$64\r\n{}\r\n", "x".repeat(64));
    [
        ("set", set.repeat(PIPELINE).into_bytes()),
        ("get", "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n".repeat(PIPELINE).into_bytes()),
        ("inline", "PING\r\n".repeat(PIPELINE).into_bytes()),
    ]
}

fn drain(parser: &mut Parser, stream: &[u8]) {
    let mut rest = stream;
    while let Ok(Parsed::Request { consumed }) = parser.parse(black_box(rest), &Limits::DEFAULT) {
        black_box(parser.args(rest).arg(1));
        rest = rest.get(consumed..).unwrap_or_default();
    }
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    for (name, stream) in streams() {
        let mut parser = Parser::new();
        group.bench_function(BenchmarkId::new("gyre", name), |bencher| {
            bencher.iter(|| drain(&mut parser, &stream));
        });
        group.bench_function(BenchmarkId::new("gyre+resolve", name), |bencher| {
            bencher.iter(|| {
                let mut rest = &stream[..];
                while let Ok(Parsed::Request { consumed }) = parser.parse(black_box(rest), &Limits::DEFAULT) {
                    black_box(resolve(parser.args(rest)).is_ok());
                    rest = rest.get(consumed..).unwrap_or_default();
                }
            });
        });
        if name != "inline" {
            group.bench_function(BenchmarkId::new("redis-protocol", name), |bencher| {
                bencher.iter(|| {
                    let mut rest = &stream[..];
                    while let Ok(Some((frame, consumed))) = resp2::decode::decode(black_box(rest)) {
                        black_box(frame);
                        rest = rest.get(consumed..).unwrap_or_default();
                    }
                });
            });
        }
    }
    group.finish();
}

fn names(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for name in ["GET", "set", "INCRBYFLOAT", "nosuch"] {
        group.bench_function(name, |bencher| bencher.iter(|| lookup(black_box(name.as_bytes()))));
    }
    group.bench_function("glob", |bencher| {
        bencher.iter(|| glob::matches(black_box(b"user:*:name"), black_box(b"user:000000001:name")));
    });
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let value = [b'x'; 64];
    let mut out = Vec::with_capacity(64 << 10);
    let mut bench = |name: &str, write: &dyn Fn(&mut Writer<'_>)| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut writer = Writer::new(&mut out, Resp::Two);
                for _ in 0..PIPELINE {
                    write(&mut writer);
                }
                black_box(out.len());
            });
        });
    };
    bench("gyre/ok", &|writer| writer.ok());
    bench("gyre/integer", &|writer| writer.integer(black_box(123_456)));
    bench("gyre/bulk64", &|writer| writer.bulk(black_box(&value)));
    group.bench_function("redis-protocol/bulk64", |bencher| {
        let frame = resp2::types::OwnedFrame::BulkString(value.to_vec());
        let mut out = vec![0; 128];
        bencher.iter(|| {
            for _ in 0..PIPELINE {
                black_box(resp2::encode::encode(black_box(&mut out), &frame, false).is_ok());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, requests, names, replies);
criterion_main!(benches);
