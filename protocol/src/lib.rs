//! RESP2 and RESP3 for Gyre: bytes to requests, replies to bytes, and the command table.
