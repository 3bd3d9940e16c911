//! The HTTP side of a node: `/metrics` for Prometheus and `/healthz` for whoever routes or restarts.
//!
//! On a thread and a runtime of its own, so that a slow scraper never touches a worker. Off unless `http-port` is set.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::error::StartError;
use crate::node::Node;

/// What the HTTP side asks of a node.
pub trait Observed: Send + Sync + 'static {
    /// The exposition text of its metrics.
    fn exposition(&self) -> String;
    /// Why it cannot serve, if it cannot.
    fn ailment(&self) -> Option<String>;
}

/// Opens `http-port`, if it is set, on the address of the client port.
///
/// # Errors
/// [`StartError::Listen`] if the port cannot be opened, [`StartError::System`] if there is no thread for it.
pub fn start(node: &Arc<Node>) -> Result<(), StartError> {
    let config = node.config.load();
    let Some(port) = config.http_port else { return Ok(()) };
    let address = SocketAddr::new(config.bind, port);
    let refused = |source| StartError::Listen { address, setting: "http-port", source };
    let listener = TcpListener::bind(address).map_err(refused)?;
    Ok(serve(listener, Arc::clone(node))?)
}

/// Serves `observed` on `listener` until the process ends.
fn serve<T: Observed>(listener: TcpListener, observed: Arc<T>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("gyre-http".into()).spawn(move || {
        let result = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router(observed)).await
        });
        if let Err(error) = result {
            tracing::error!(%error, "the HTTP side has ended");
        }
    })?;
    Ok(())
}

fn router<T: Observed>(observed: Arc<T>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::<T>))
        .route("/healthz", get(health::<T>))
        .with_state(observed)
}

async fn metrics<T: Observed>(State(observed): State<Arc<T>>) -> Response {
    let content_type = [(header::CONTENT_TYPE, crate::metrics::exposition::CONTENT_TYPE)];
    (content_type, observed.exposition()).into_response()
}

async fn health<T: Observed>(State(observed): State<Arc<T>>) -> Response {
    match observed.ailment() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(ailment) => (StatusCode::SERVICE_UNAVAILABLE, ailment + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Mutex;

    use super::*;

    struct Patient(Mutex<Option<String>>);

    impl Observed for Patient {
        fn exposition(&self) -> String {
            "gyre_up 1\n".into()
        }

        fn ailment(&self) -> Option<String> {
            self.0.lock().unwrap().clone()
        }
    }

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: gyre\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn health_and_metrics_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let patient = Arc::new(Patient(Mutex::new(Some("the ring has not formed".into()))));
        serve(listener, Arc::clone(&patient)).unwrap();

        let answer = ask(address, "/healthz");
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("the ring has not formed\n"),
            "{answer}"
        );
        *patient.0.lock().unwrap() = None;
        let answer = ask(address, "/healthz");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        let answer = ask(address, "/metrics");
        assert!(answer.contains("text/plain; version=0.0.4") && answer.ends_with("gyre_up 1\n"), "{answer}");
        assert!(ask(address, "/").starts_with("HTTP/1.1 404"));
    }
}
