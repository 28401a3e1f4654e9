//! The client against nodes that lie, stay silent, or have changed meanwhile.
#![allow(clippy::unwrap_used, reason = "a test; its helpers are not marked as such")]

use std::time::Duration;

use cairn_protocol::client::{Client, Credentials, Error, Options};
use cairn_protocol::frame::{self, Kind};
use cairn_protocol::handshake::{Challenge, Hello, Transcript, Welcome};
use cairn_protocol::message::{
    Failure, Key, KeyAttribute, KeyPart, Operation, Partition, Request, Retry, Table, response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a node does with a request: the kind and body of its answer, or nothing.
type Answers = fn(&Request<'_>) -> Option<(Kind, Vec<u8>)>;

/// How a node proves that it knows the secret.
type Proves = fn(&Transcript<'_>) -> [u8; 32];

/// A node that requires no proof of the client; its address.
async fn node(proves: Proves, tables: Vec<Table>, answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, proves, tables.clone(), answers));
        }
    });
    address
}

async fn next(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<(u64, Vec<u8>)> {
    loop {
        if let Some((frame, taken)) = frame::decode(received).unwrap() {
            let found = (frame.request_id, frame.body.to_vec());
            received.drain(..taken);
            return Some(found);
        }
        if stream.read_buf(received).await.ok()? == 0 {
            return None;
        }
    }
}

async fn serve(mut stream: TcpStream, proves: Proves, tables: Vec<Table>, answers: Answers) -> Option<()> {
    let mut received = Vec::new();
    let (_, body) = next(&mut stream, &mut received).await?;
    let hello = Hello::decode(&body).unwrap();
    let challenge = Challenge {
        version: 1,
        features: 0,
        nonce: [9; 32],
        proof_required: false,
        body_bytes_max: 1 << 24,
        window: 16,
    };
    let mut out = Vec::new();
    frame::encode(&mut out, Kind::Challenge, 0, |into| challenge.encode(into));
    stream.write_all(&out).await.ok()?;
    next(&mut stream, &mut received).await?;
    let transcript = Transcript {
        client_nonce: &hello.nonce,
        node_nonce: &[9; 32],
        access_key: hello.access_key,
    };
    let welcome = Welcome {
        proof: proves(&transcript),
        node: [0; 16],
        catalog_version: 1,
        complete: true,
        tables,
    };
    out.clear();
    frame::encode(&mut out, Kind::Welcome, 0, |into| welcome.encode(into));
    stream.write_all(&out).await.ok()?;
    loop {
        let (id, body) = next(&mut stream, &mut received).await?;
        if let Some((kind, answer)) = answers(&Request::decode(&body).unwrap()) {
            out.clear();
            frame::encode(&mut out, kind, id, |into| into.extend_from_slice(&answer));
            stream.write_all(&out).await.ok()?;
        }
    }
}

fn silent(_: &Request<'_>) -> Option<(Kind, Vec<u8>)> {
    None
}

fn table(id: u64) -> Table {
    Table {
        id,
        epoch: 1,
        seed: 0,
        name: "tab".to_owned(),
        partition_key: KeyAttribute {
            name: "pk".to_owned(),
            kind: b'S',
        },
        sort_key: None,
        partitions: vec![Partition {
            id: 1,
            lower: 0,
            address: String::new(),
        }],
    }
}

const KEY: Key<'_> = Key {
    partition: KeyPart::S("p"),
    sort: None,
};

#[tokio::test]
async fn a_client_with_a_secret_wants_proof_of_it_from_a_node_that_asks_for_none() {
    let options = || Options {
        credentials: Some(Credentials {
            access_key: "key".to_owned(),
            secret: "secret".to_owned(),
        }),
        ..Options::default()
    };
    let impostor = node(|_| [0; 32], Vec::new(), silent).await;
    let refused = Client::connect(&impostor, options()).await.err().unwrap();
    assert!(matches!(refused, Error::Protocol(_)), "{refused}");
    let honest = node(|transcript| transcript.node_proof(b"secret"), Vec::new(), silent).await;
    Client::connect(&honest, options()).await.unwrap();
    // Without a secret there is nothing to prove.
    Client::connect(&impostor, Options::default()).await.unwrap();
}

#[tokio::test]
async fn only_a_read_times_out_without_doubt() {
    let options = Options {
        request_timeout: Duration::from_millis(100),
        ..Options::default()
    };
    let address = node(|_| [0; 32], vec![table(1)], silent).await;
    let client = Client::connect(&address, options).await.unwrap();
    let table = client.table("tab").await.unwrap();
    let read = client.get(&table, KEY, true).await.unwrap_err();
    assert!(matches!(read, Error::Timeout(_)), "{read}");
    for write in [
        client.json("PutItem", b"{}").await.unwrap_err(),
        client.delete(&table, KEY, false).await.unwrap_err(),
    ] {
        assert!(matches!(write, Error::Unknown { .. }), "{write}");
    }
}

#[tokio::test]
async fn what_does_not_fit_a_frame_is_not_sent() {
    let address = node(|_| [0; 32], vec![table(1)], silent).await;
    let client = Client::connect(&address, Options::default()).await.unwrap();
    let error = client.json("PutItem", &vec![b' '; 1 << 24]).await.unwrap_err();
    assert!(matches!(error, Error::TooLong(_)), "{error}");
}

#[tokio::test]
async fn a_table_that_was_made_again_is_found_under_its_name() {
    let address = node(
        |_| [0; 32],
        vec![table(1)],
        |request| {
            let mut body = Vec::new();
            Some(match request.operation {
                Operation::OpenTable { .. } => {
                    response::encode_table(&mut body, &table(2));
                    (Kind::Response, body)
                }
                _ if request.table == 2 => {
                    response::encode_item(&mut body, 0, None);
                    (Kind::Response, body)
                }
                _ => {
                    let failure = Failure {
                        status: 400,
                        retry: Retry::Never,
                        name: "ResourceNotFoundException".to_owned(),
                        message: String::new(),
                        epoch: 0,
                        json: Vec::new(),
                    };
                    failure.encode(&mut body);
                    (Kind::Failure, body)
                }
            })
        },
    )
    .await;
    let client = Client::connect(&address, Options::default()).await.unwrap();
    let old = client.table("tab").await.unwrap();
    assert!(matches!(client.get(&old, KEY, true).await, Err(Error::Failed(_))));
    let new = client.table("tab").await.unwrap();
    assert_eq!((old.id, new.id), (1, 2));
    assert_eq!(client.get(&new, KEY, true).await.unwrap(), None);
}
