/** TLS with clients that nobody here wrote: openssl, curl, sslscan and node:tls. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  type Address,
  AsyncTCPServer,
  AsyncUDPServer,
  BaseRequestHandler,
  connect,
  getRuntime,
  type InetAddress,
  type RequestHandlerClass,
  SocketError,
  StreamReader,
  StreamRequestHandler,
  TCPServer,
  type TlsInfo,
  type TlsOptions,
} from "@sockets/server";
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as netConnect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { Program, run, testWith } from "../interop/programs.ts";
import { openSocket, openTlsSocket } from "./adapters.ts";
import { authority, certificate } from "./certificates.ts";
import { EchoHandler, gate, handler, type Quiet, quiet, until } from "./serving.ts";

const { name, capabilities } = getRuntime();
const it = (what: string, body: () => Promise<void>) => void test(`${name} tls: ${what}`, body);
const withOpenssl = (what: string, body: () => Promise<void>) => testWith("openssl", `tls: openssl: ${what}`, body);

/** What a test's server has learnt. */
interface Observed {
  port: number;
  failures: [code: string, message: string, address: Address | null][];
  errors: unknown[];
}

/** Serves with TLS while `use` runs. */
async function serving(
  tls: TlsOptions,
  Handler: RequestHandlerClass,
  use: (server: TCPServer & Observed) => Promise<void>,
  Server: typeof TCPServer = AsyncTCPServer,
): Promise<void> {
  class TlsServer extends (quiet(Server) as typeof TCPServer) {
    failures: unknown[] = [];
    get port() {
      return (this.serverAddress as InetAddress).port;
    }
    override handleHandshakeError(error: SocketError, address: Address | null): void {
      this.failures.push([error.code, error.message, address]);
    }
  }
  const server = new TlsServer("tls://127.0.0.1:0", Handler, { tls, shutdownTimeout: 0 });
  await server.activate();
  const served = server.serveForever();
  try {
    await use(server as unknown as TCPServer & Observed);
  } finally {
    await server.serverClose();
    await served;
  }
}

/** Tells the peer what the handshake came to, and then echoes. */
class TellingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write(JSON.stringify(this.request.tls) + "\n");
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** `openssl s_client`, which writes what it receives to its stdout, and all else to its stderr. */
class SClient extends Program {
  constructor(port: number, ...args: string[]) {
    super("openssl", ["s_client", "-connect", `127.0.0.1:${port}`, "-CAfile", authority().cert, "-brief", ...args]);
  }

  /** What a {@linkcode TellingHandler} has told. */
  async told(): Promise<TlsInfo> {
    return JSON.parse(await this.line()) as TlsInfo;
  }

  /** Ends the connection in order; the name on the server's certificate. */
  async leave(): Promise<string | undefined> {
    this.end();
    await this.exited;
    return /^Peer certificate:.*CN = (.*)$/m.exec(this.stderr)?.[1];
  }

  /** Waits until it has given up; what it says why. */
  async refused(): Promise<string> {
    await this.exited;
    return this.stderr;
  }
}

/** A client over `node:tls`, once its handshake is done. */
function open(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const ca = readFileSync(authority().cert, "utf8");
    const socket = tlsConnect({ port, host: "127.0.0.1", ca, servername: "localhost", ...options });
    socket.once("error", reject);
    socket.once("secureConnect", () => resolve(socket));
  });
}

function plain(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = netConnect({ port, host: "127.0.0.1" });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()));
const local = () => certificate("localhost");

// What is agreed on.

withOpenssl(
  "the handler sees the version and the cipher, and bytes come back",
  () =>
    serving(local(), TellingHandler, async (server) => {
      for (const version of ["TLSv1.2", "TLSv1.3"]) {
        const client = new SClient(server.port, version === "TLSv1.2" ? "-tls1_2" : "-tls1_3", "-servername", "localhost");
        const { protocol, cipher, ...rest } = await client.told();
        assertEquals(protocol, version);
        assert(/^TLS_(ECDHE_ECDSA_WITH_)?(AES_(128|256)_GCM|CHACHA20_POLY1305)_SHA(256|384)$/.test(cipher), cipher);
        assertEquals(rest, { alpnProtocol: null, servername: "localhost", resumed: false, peerCertificate: null });
        client.send("hello\n");
        assertEquals(await client.line(), "hello");
        assertEquals(await client.leave(), "localhost");
        assert(client.stderr.includes("Verification: OK"), client.stderr);
      }
      await until(() => server.activeRequests.size === 0);
      assertEquals(server.errors, []);
      assertEquals(server.failures, []);
    }),
);

withOpenssl("nothing below TLS 1.2, and with minVersion nothing below 1.3; counted and reported", async () => {
  await serving(local(), EchoHandler, async (server) => {
    for (const old of ["-tls1", "-tls1_1"]) {
      assert(/alert|eof/.test(await new SClient(server.port, old, "-cipher", "DEFAULT@SECLEVEL=0").refused()));
    }
    await until(() => server.failures.length === 2);
    assertEquals(server.failures.map(([code]) => code), ["EPROTO", "EPROTO"]);
    const [, message, address] = server.failures[0]!;
    assert(message.startsWith("handshake EPROTO: TLS failed: "), message);
    assert(address?.transport === "tcp" && address.hostname === "127.0.0.1" && address.port > 0);
    assertEquals([server.stats.ended["handshake failed"], server.stats.accepted, server.stats.handshaking], [2, 0, 0]);
  });
  await serving({ ...local(), minVersion: "TLSv1.3" }, TellingHandler, async (server) => {
    assert(/alert|eof/.test(await new SClient(server.port, "-tls1_2").refused()));
    const client = new SClient(server.port);
    assertEquals((await client.told()).protocol, "TLSv1.3");
    await client.leave();
  });
});

withOpenssl("SNI: each name gets its certificate, also by wildcard; others and none get the first", () => {
  const kind = capabilities.tlsKeyKinds === true ? "rsa" : "ec";
  const sni = { "b.test": certificate("b.test"), "*.c.test": certificate("*.c.test", "ca", kind) };
  return serving({ ...local(), sni }, TellingHandler, async (server) => {
    for (
      const [asked, given] of [
        ["b.test", "b.test"],
        ["B.Test", "b.test"],
        ["x.c.test", "*.c.test"],
        ["x.y.c.test", "localhost"],
        ["c.test", "localhost"],
        ["other.test", "localhost"],
        ["", "localhost"],
      ] as const
    ) {
      for (const version of ["-tls1_2", "-tls1_3"]) {
        const client = new SClient(server.port, version, ...(asked === "" ? ["-noservername"] : ["-servername", asked]));
        const { servername } = await client.told();
        assertEquals(servername?.toLowerCase() ?? "", asked.toLowerCase());
        assertEquals(await client.leave(), given);
      }
    }
  });
});

withOpenssl(
  "ALPN: the server's preference decides; a client with others only is refused, one with none is not",
  () =>
    serving({ ...local(), alpnProtocols: ["first", "second"] }, TellingHandler, async (server) => {
      for (const [offered, agreed] of [["second,first", "first"], ["x,second", "second"], ["", null]] as const) {
        const client = new SClient(server.port, ...(offered === "" ? [] : ["-alpn", offered]));
        assertEquals((await client.told()).alpnProtocol, agreed);
        await client.leave();
      }
      assert(/no application protocol/.test(await new SClient(server.port, "-alpn", "x").refused()));
      await until(() => server.failures.length === 1);
      assertEquals(server.failures[0]![0], "EPROTO");
    }),
);

withOpenssl("an RSA certificate, and PEM text in place of paths", () => {
  const { cert, key } = certificate("localhost", "ca", "rsa");
  const text = (path: string) => readFileSync(path, "utf8");
  return serving({ cert: text(cert), key: text(key) }, TellingHandler, async (server) => {
    const client = new SClient(server.port, "-tls1_2");
    assert((await client.told()).cipher.startsWith("TLS_ECDHE_RSA_WITH_"));
    assertEquals(await client.leave(), "localhost");
  });
});

// Client certificates.

const given = ({ cert, key }: { cert: string; key: string }) => ["-cert", cert, "-key", key];

for (const clientCertificate of ["require", "request"] as const) {
  for (const version of ["-tls1_2", "-tls1_3"]) {
    withOpenssl(
      `client certificates, ${clientCertificate}, ${version}: the handler sees one that has been verified`,
      () =>
        serving({ ...local(), ca: authority().cert, clientCertificate }, TellingHandler, async (server) => {
          const shown = certificate("client");
          const client = new SClient(server.port, version, ...given(shown));
          const { peerCertificate } = await client.told();
          assertEquals(peerCertificate?.commonName, "client");
          assertEquals(peerCertificate?.subject, "O=Test\nCN=client");
          assertEquals(peerCertificate?.issuer, "CN=ca");
          assertEquals(peerCertificate?.subjectAltName, "DNS:client");
          assert(new Date(peerCertificate!.validTo) > new Date(peerCertificate!.validFrom));
          const fingerprint = await run("openssl", ["x509", "-in", shown.cert, "-noout", "-sha256", "-fingerprint", "-serial"]);
          assertEquals(
            fingerprint.stdout.trim().split("\n").map((line) => line.replace(/.*=/, "")),
            [peerCertificate!.fingerprint256, peerCertificate!.serialNumber],
          );
          assertEquals(peerCertificate!.pem.trim(), readFileSync(shown.cert, "utf8").trim());
          await client.leave();

          // Somebody else vouches for it, and has the same name.
          for (const bad of [certificate("client", "mallory"), authority("self")]) {
            assert(!(await new SClient(server.port, version, ...given(bad)).finish()).stdout.includes("{"));
          }
          await until(() => server.failures.length === 2);
          for (const [code, message] of server.failures) {
            assertEquals(code, "EPROTO");
            assert(/the client's certificate: \w+/.test(message), message);
          }

          const without = new SClient(server.port, version);
          if (clientCertificate === "request") {
            assertEquals((await without.told()).peerCertificate, null);
            await without.leave();
          } else {
            assert(!(await without.finish()).stdout.includes("{"));
            await until(() => server.failures.length === 3);
          }
          assertEquals(server.stats.accepted, clientCertificate === "request" ? 2 : 1);
        }),
    );
  }
}

withOpenssl("a certificate that nobody asked for is not looked at", () =>
  serving(local(), TellingHandler, async (server) => {
    const client = new SClient(server.port, ...given(certificate("client", "mallory")));
    assertEquals((await client.told()).peerCertificate, null);
    await client.leave();
  }));

// Sessions.

for (const version of ["-tls1_2", "-tls1_3"]) {
  withOpenssl(
    `sessions are resumed, ${version}, and whoever has shown a certificate is still known`,
    () =>
      withFolder((folder) =>
        serving(
          { ...local(), ca: authority().cert, clientCertificate: "request" },
          TellingHandler,
          async (server) => {
            for (const [label, shown] of [["with", given(certificate("client"))], ["without", []]] as const) {
              const session = join(folder, label);
              const args = [version, "-servername", "localhost", ...shown];
              const first = new SClient(server.port, ...args, "-sess_out", session);
              const told = await first.told();
              assertEquals(told.resumed, false);
              // With TLS 1.3 the ticket comes after the handshake: by now it has.
              first.send("x\n");
              await first.line();
              await first.leave();
              const second = new SClient(server.port, ...args, "-sess_in", session);
              const { resumed, peerCertificate } = await second.told();
              assertEquals(resumed, true);
              assertEquals(peerCertificate, told.peerCertificate);
              await second.leave();
            }
          },
        )
      ),
  );

  withOpenssl(
    `a session of another server, ${version}, does not stand in for a certificate that this one requires`,
    () =>
      withFolder((folder) =>
        serving(
          local(),
          TellingHandler,
          (lax) =>
            serving({ ...local(), ca: authority("mallory").cert, clientCertificate: "request" }, TellingHandler, (other) =>
              serving({ ...local(), ca: authority().cert, clientCertificate: "require" }, TellingHandler, async (strict) => {
                for (const [server, shown] of [[lax, []], [other, given(certificate("client", "mallory"))]] as const) {
                  const session = join(folder, String(server.port));
                  const args = [version, "-servername", "localhost", ...shown];
                  const first = new SClient(server.port, ...args, "-sess_out", session);
                  await first.told();
                  first.send("x\n");
                  await first.line();
                  await first.leave();
                  const { stdout } = await new SClient(strict.port, ...args, "-sess_in", session).finish();
                  assertEquals(stdout, "");
                }
                await until(() => strict.failures.length === 2);
                assertEquals(strict.stats.accepted, 0);
              })),
        )
      ),
  );
}

// Handshakes that fail.

it("garbage, half a handshake and a reset in its midst are counted and reported, and cost nobody else anything", () =>
  serving(local(), EchoHandler, async (server) => {
    const bystander = await openTlsSocket(server.serverAddress);
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const before = descriptors();
    const hello = clientHello();
    const attacks: ((socket: Socket) => void)[] = [
      (socket) => socket.write("GET / HTTP/1.1\r\n\r\n"),
      (socket) => socket.write(new Uint8Array(5000)),
      (socket) => socket.write(new Uint8Array([22, 3, 1, 255, 255])),
      (socket) => socket.end(),
      (socket) => socket.end(hello.subarray(0, 100)),
      (socket) => socket.write(hello.subarray(0, 20), () => socket.resetAndDestroy()),
      (socket) => socket.write(hello, () => socket.destroy()),
      (socket) => socket.end(hello),
    ];
    for (let round = 1; round <= 5; round++) {
      const sockets = await Promise.all(attacks.map(async (attack) => {
        const socket = await plain(server.port);
        socket.resume();
        attack(socket);
        return socket;
      }));
      await until(() => server.stats.ended["handshake failed"] === round * attacks.length);
      for (const socket of sockets) socket.destroy();
      await bystander.write("still here");
      assertEquals(await bystander.read(10), "still here");
    }
    for (const [code, , address] of server.failures) {
      assert(["EPROTO", "ECONNRESET"].includes(code), code);
      assertEquals(address?.transport, "tcp");
    }
    await until(() => descriptors() <= before + 1);
    assertEquals([server.stats.accepted, server.stats.handshaking], [1, 0]);
    assertEquals(server.errors, []);
    await bystander.end();
  }));

for (const [mode, Server] of [["sequential", TCPServer], ["async", AsyncTCPServer]] as const) {
  it(`a peer that never says anything keeps nobody waiting, ${mode}`, () =>
    serving(
      { ...local(), handshakeTimeout: Infinity },
      EchoHandler,
      async (server) => {
        const silent = await Promise.all(Array.from({ length: 20 }, () => plain(server.port)));
        await until(() => server.stats.handshaking === 20);
        const client = await openTlsSocket(server.serverAddress);
        await client.write("x");
        assertEquals(await client.read(1), "x");
        assertEquals(server.stats.handshaking, 20);
        await client.end();
        for (const socket of silent) socket.destroy();
        await until(() => server.failures.length === 20);
      },
      Server,
    ));

  it(`a peer that never says anything, or stops in the middle, is cut off after the handshake timeout, ${mode}`, () =>
    serving(
      { ...local(), handshakeTimeout: 50 },
      EchoHandler,
      async (server) => {
        const sockets = [await plain(server.port), await plain(server.port)];
        sockets[1]!.write(clientHello().subarray(0, 40));
        await Promise.all(sockets.map((socket) => closed(socket.resume())));
        await until(() => server.failures.length === 2);
        assertEquals(server.failures.map(([code]) => code), ["ETIMEDOUT", "ETIMEDOUT"]);
        assert(server.failures[0]![1].includes("handshake ETIMEDOUT: not done within 50 ms"));
      },
      Server,
    ));
}

it("handshakes are done while a sequential server is busy with another request", async () => {
  const release = gate();
  const Handler = handler(async (conn) => {
    await release.promise;
    await conn.write("done");
  });
  await serving(
    local(),
    Handler,
    async (server) => {
      const clients = await Promise.all(Array.from({ length: 5 }, () => openTlsSocket(server.serverAddress)));
      await until(() => server.stats.handshaking === 0);
      assertEquals(server.activeRequests.size, 1);
      release.resolve();
      for (const client of clients) assertEquals(new TextDecoder().decode(await client.readAll()), "done");
      await Promise.all(clients.map((client) => client.end()));
    },
    TCPServer,
  );
});

it("serverClose ends the handshakes under way, and reports none of them", async () => {
  let sockets: Socket[] = [];
  let failures: unknown[] = [];
  await serving({ ...local(), handshakeTimeout: Infinity }, EchoHandler, async (server) => {
    failures = server.failures;
    sockets = await Promise.all(Array.from({ length: 5 }, () => plain(server.port)));
    await until(() => server.stats.handshaking === 5);
    const gone = sockets.map((socket) => closed(socket.resume()));
    await server.serverClose();
    await Promise.all(gone);
  });
  assertEquals(failures, []);
});

it("what handleHandshakeError throws goes to handleError, and the server goes on", async () => {
  const reported = gate<unknown>();
  class Strict extends AsyncTCPServer {
    override handleHandshakeError(): Promise<void> {
      return Promise.reject(new Error("no more"));
    }
    override handleError(_request: unknown, _address: unknown, error: unknown): void {
      reported.resolve(error);
    }
  }
  const server = new Strict("tls://127.0.0.1:0", EchoHandler, { tls: local() });
  await server.activate();
  const served = server.serveForever();
  const socket = await plain((server.serverAddress as InetAddress).port);
  socket.write("garbage!");
  assertEquals((await reported.promise as Error).message, "no more");
  socket.destroy();
  await server.serverClose();
  await served;
});

it("handleHandshakeError is silent by default, and the server goes on", async () => {
  const server = new AsyncTCPServer("tls://127.0.0.1:0", EchoHandler, { tls: local() });
  await server.activate();
  void server.serveForever();
  const socket = await plain((server.serverAddress as InetAddress).port);
  socket.write("garbage!");
  await until(() => server.stats.ended["handshake failed"] === 1);
  socket.destroy();
  const client = await openTlsSocket(server.serverAddress);
  await client.write("x");
  assertEquals(await client.read(1), "x");
  await client.end();
  await server.serverClose();
});

// Certificates that change.

it("a certificate is replaced while 50 connections echo: none drops, and new ones see the new one", () =>
  withFolder((folder) => {
    const files = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
    const put = (host: string, kind: "ec" | "rsa") => {
      copyFileSync(certificate(host, "ca", kind).cert, files.cert);
      copyFileSync(certificate(host, "ca", kind).key, files.key);
    };
    put("localhost", "ec");
    return serving(files, EchoHandler, async (server) => {
      const seen = async () => {
        const socket = await open(server.port, { checkServerIdentity: () => undefined });
        const { CN } = socket.getPeerCertificate().subject;
        socket.end();
        return CN;
      };
      const clients = await Promise.all(Array.from({ length: 50 }, () => openTlsSocket(server.serverAddress)));
      let stop = false;
      let rounds = 0;
      const echoing = clients.map(async (client, i) => {
        for (let round = 0; !stop || round < 20; round++, rounds++) {
          const text = `client ${i} round ${round} `.repeat(40);
          await client.write(text);
          assertEquals(await client.read(text.length), text);
        }
      });
      assertEquals(await seen(), "localhost");
      put("b.test", "rsa");
      assertEquals(await seen(), "localhost");
      await server.reloadTls();
      assertEquals(await seen(), "b.test");
      await server.reloadTls(certificate("d.test"));
      assertEquals(await seen(), "d.test");

      // One that is no good changes nothing.
      writeFileSync(files.key, "nonsense");
      await assertRejects(() => server.reloadTls({ cert: files.cert, key: files.key }), TypeError, "tls.key must be");
      await assertRejects(() => server.reloadTls({ ...local(), minVersion: "TLSv1" as "TLSv1.2" }), RangeError, "minVersion");
      assertEquals(await seen(), "d.test");
      const before = rounds;
      await until(() => rounds >= before + 500);
      stop = true;
      await Promise.all(echoing);
      await Promise.all(clients.map((client) => client.end()));
      await until(() => server.activeRequests.size === 0);
      assertEquals(server.errors, []);
      assertEquals(server.failures, []);
    });
  }));

// The end of a stream.

withOpenssl("an end without close_notify is not taken for the end of what the peer had to say", async () => {
  const outcome = gate<unknown>();
  const Handler = handler(async (conn) => {
    await conn.write("ready\n");
    try {
      for (let chunk; (chunk = await conn.read()) !== null;) assertEquals(new TextDecoder().decode(chunk), "half a message\n");
      outcome.resolve("end");
    } catch (error) {
      outcome.resolve((error as SocketError).code);
      await conn.closed;
      assertEquals(conn.error, error as SocketError);
    }
  });
  await serving(local(), Handler, async (server) => {
    const client = new SClient(server.port);
    assertEquals(await client.line(), "ready");
    client.send("half a message\n");
    await until(() => server.activeRequests.size === 1);
    client.kill("SIGKILL");
    await client.exited;
    assertEquals(await outcome.promise, capabilities.tlsTruncation === true ? "ECONNRESET" : "end");
  });
});

withOpenssl(
  "the server's end is marked as one, also when the handler returns at once",
  () =>
    serving(local(), handler((conn) => void conn.write("x".repeat(300_000))), async (server) => {
      for (const version of ["-tls1_2", "-tls1_3"]) {
        const { status, stdout, stderr } = await new SClient(server.port, version, "-ign_eof").finish();
        assertEquals(stdout.length, 300_000);
        assert(!/eof|error/i.test(stderr), stderr);
        assertEquals(status, 0);
      }
    }),
);

// Servers that can't be.

it("options that are none are errors before anything is bound", async () => {
  const refusal = async (tls: unknown, address = "tls://127.0.0.1:0") => {
    const server = new TCPServer(address, EchoHandler, { tls: tls as TlsOptions });
    const error = await server.activate().then(() => null, (error) => error as Error);
    assert(error !== null, JSON.stringify(tls));
    assertEquals((server.serverAddress as InetAddress).port ?? 0, 0);
    return `${error.name}: ${error.message}`;
  };
  const { cert, key } = local();
  const other = certificate("b.test");
  assertEquals(
    await refusal(null),
    "TypeError: tls://127.0.0.1:0 needs the option tls, with a certificate and its key",
  );
  assertEquals(await refusal({ cert }), "TypeError: tls.key must be PEM text or the path of a PEM file, got undefined");
  assertEquals(await refusal({ cert, key, ciphers: "ALL" }), "TypeError: unknown option: tls.ciphers");
  assertEquals(
    await refusal({ cert, key: other.key }),
    "TypeError: tls.key is not the key of tls.cert, whose subject is localhost",
  );
  assertEquals(
    await refusal({ cert, key, sni: { "b.test": { cert: other.cert, key } } }),
    'TypeError: tls.sni["b.test"].key is not the key of tls.sni["b.test"].cert, whose subject is b.test',
  );
  assert((await refusal({ cert: "/nowhere/cert.pem", key })).startsWith("SocketError: open ENOENT: tls.cert can't be read: "));
  assert((await refusal({ cert, key: cert })).startsWith("TypeError: tls.key must be a private key without a passphrase: "));
  assert((await refusal({ cert: key, key })).startsWith("TypeError: tls.cert must be a certificate: "));
  assert((await refusal({ cert, key, ca: key })).startsWith("TypeError: tls.ca must hold certificates in PEM text"));
  assert((await refusal({ cert, key, clientCertificate: "require" })).startsWith("TypeError: tls.clientCertificate is"));
  if (capabilities.tlsKeyKinds !== true) {
    const sni = { "b.test": certificate("b.test", "ca", "rsa") };
    assert((await refusal({ cert, key, sni })).startsWith('UnsupportedError: the key of tls.sni["b.test"] is of another kind'));
  }
  // Options of the other kind of server.
  const udp = new AsyncUDPServer("udp://127.0.0.1:0", handler(() => {}) as never, { tls: local() } as object);
  await assertRejects(() => udp.activate(), TypeError, "tls secures connections, not datagrams");
});

it("a server has one way to TLS: tls:// and tcp:// with the option are the same", async () => {
  const server = new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler, { tls: local() });
  await server.activate();
  assertEquals((server.serverAddress as InetAddress).tls, true);
  await server.serverClose();
  await assertRejects(() => new AsyncTCPServer("tcp://127.0.0.1:0", EchoHandler).reloadTls(local()), TypeError, "has no tls");
});

// Our own client.

withOpenssl("connect() verifies the server: its authority, its name, its dates", async () => {
  const server = new Program("openssl", [
    ...["s_server", "-accept", "127.0.0.1:0", "-cert", local().cert, "-key", local().key, "-alpn", "echo", "-rev"],
  ]);
  try {
    let line = "";
    while (!line.startsWith("ACCEPT")) line = await server.line();
    const port = Number(/:(\d+)$/.exec(line)![1]);
    const ca = authority().cert;
    for (const address of [`tls://localhost:${port}`, `tls://127.0.0.1:${port}`]) {
      const client = await connect(address, { tls: { ca, alpnProtocols: ["x", "echo"] } });
      assertEquals(client.tls!.alpnProtocol, "echo");
      assertEquals(client.tls!.peerCertificate!.commonName, "localhost");
      assertEquals(client.tls!.protocol, "TLSv1.3");
      await client.write("abc\n");
      assertEquals(await new StreamReader(client).readLine(), "cba");
      await client.close();
    }
    const refused = async (tls: object) => {
      const error = await assertRejects(() => connect(`tls://127.0.0.1:${port}`, { tls }), SocketError);
      assertEquals(error.code, "EPROTO");
      assertEquals((error.address as InetAddress).port, port);
    };
    await refused({ ca, servername: "b.test" });
    await refused({ ca: authority("mallory").cert });
    await refused({});
    const trusting = await connect(`tcp://127.0.0.1:${port}`, { tls: { rejectUnauthorized: false } });
    assertEquals(trusting.tls!.peerCertificate!.commonName, "localhost");
    await trusting.close();
  } finally {
    server.kill("SIGKILL");
    await server.exited;
  }
});

it("connect() shows its certificate, resets are errors, and a server that is none is cut off", async () => {
  await serving({ ...local(), ca: authority().cert, clientCertificate: "require" }, TellingHandler, async (server) => {
    const client = await connect(server.serverAddress, { tls: { ca: authority().cert, ...certificate("client") } });
    const told = JSON.parse((await new StreamReader(client).readLine())!) as TlsInfo;
    assertEquals(told.peerCertificate?.commonName, "client");
    await client.close();
  });
  const silent = createServer((socket) => void socket.on("error", () => {}).resume());
  const rude = createServer((socket) => void socket.end("220 not TLS\r\n"));
  await Promise.all([silent, rude].map((server) => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))));
  const port = (server: typeof silent) => (server.address() as { port: number }).port;
  const tls = { ca: authority().cert, servername: "localhost", handshakeTimeout: 50 };
  const late = await assertRejects(() => connect(`tls://127.0.0.1:${port(silent)}`, { tls }), SocketError);
  assertEquals(late.code, "ETIMEDOUT");
  const wrong = await assertRejects(
    () => connect(`tls://127.0.0.1:${port(rude)}`, { tls: { ...tls, handshakeTimeout: 5000 } }),
    SocketError,
  );
  assert(["EPROTO", "ECONNRESET"].includes(wrong.code), wrong.code);
  silent.close();
  rude.close();
});

// STARTTLS.

/** As little of SMTP as STARTTLS takes (RFC 3207), then an echo of lines. */
function mailHandler(tls: TlsOptions, seen: string[]): RequestHandlerClass {
  return class extends StreamRequestHandler {
    override async handle(): Promise<void> {
      await this.wfile.write("220 mail.test ready\r\n");
      for await (const line of this.rfile) {
        seen.push(`${this.request.tls === null ? "clear" : "secured"}: ${line}`);
        if (line.startsWith("EHLO")) await this.wfile.write("250-mail.test\r\n250 STARTTLS\r\n");
        else if (line !== "STARTTLS") await this.wfile.write(`${line}\r\n`);
        else {
          await this.wfile.write("220 go ahead\r\n");
          await this.request.startTls(tls);
        }
      }
    }
  };
}

async function plainServing(
  Handler: RequestHandlerClass,
  use: (server: TCPServer & { port: number; errors: unknown[] }) => Promise<void>,
): Promise<void> {
  const server = new (quiet(AsyncTCPServer))("tcp://127.0.0.1:0", Handler, { shutdownTimeout: 0 });
  await server.activate();
  const served = server.serveForever();
  try {
    await use(Object.assign(server as TCPServer & Quiet, { port: (server.serverAddress as InetAddress).port }));
  } finally {
    await server.serverClose();
    await served;
  }
}

withOpenssl("STARTTLS: a handler upgrades its connection, once a client asks for it", async () => {
  const seen: string[] = [];
  const tls = local();
  await plainServing(mailHandler(tls, seen), async (server) => {
    for (let i = 0; i < 3; i++) {
      const client = new SClient(server.port, "-starttls", "smtp", "-servername", "localhost");
      client.send("hello\r\n");
      assertEquals(await client.line(), "hello\r");
      assertEquals(await client.leave(), "localhost");
    }
    await until(() => server.activeRequests.size === 0);
    assertEquals(seen.slice(-3), ["clear: EHLO mail.example.com", "clear: STARTTLS", "secured: hello"]);
    assertEquals(server.errors, []);
  });
});

it("STARTTLS: what was read ahead in the clear ends the connection and reaches nobody (CVE-2011-0411)", async () => {
  const seen: string[] = [];
  await plainServing(mailHandler(local(), seen), async (server) => {
    const client = await openSocket(server.serverAddress);
    await client.write("EHLO x\r\nSTARTTLS\r\nMAIL FROM:<mallory>\r\n");
    await client.readAll();
    await until(() => server.errors.length === 1);
    const error = server.errors[0];
    assertInstanceOf(error, SocketError);
    assertEquals(error.code, "EPROTO");
    assert(error.message.includes("21 bytes were received in the clear after the request for TLS"), error.message);
    assertEquals(seen, ["clear: EHLO x", "clear: STARTTLS"]);
    await client.end().catch(() => {});
  });
});

it("STARTTLS: what comes in the clear behind the request, in a packet of its own, is no handshake", async () => {
  const seen: string[] = [];
  await plainServing(mailHandler(local(), seen), async (server) => {
    const client = await openSocket(server.serverAddress);
    await client.write("STARTTLS\r\n");
    await client.read("220 mail.test ready\r\n220 go ahead\r\n".length);
    await client.write("MAIL FROM:<mallory>\r\n");
    await client.readAll();
    await until(() => server.errors.length === 1);
    assertEquals((server.errors[0] as SocketError).code, "EPROTO");
    assertEquals(seen, ["clear: STARTTLS"]);
    await client.end().catch(() => {});
  });
});

it("STARTTLS: both ends are ours; what was received before it is read is the handshake's", async () => {
  const tls = local();
  const Handler = handler(async (conn) => {
    assertEquals(conn.tls, null);
    await conn.read();
    const { signal } = conn;
    await conn.write("go");
    // By now the client has begun.
    await until(() => conn.bytesRead > "start".length);
    const upgraded = conn.startTls(tls);
    for (const early of [() => conn.read(), async () => await conn.write("secret"), () => conn.closeWrite()]) {
      await assertRejects(early, TypeError, "");
    }
    await upgraded;
    assertEquals(conn.tls!.servername, "localhost");
    assertEquals(signal.aborted, false);
    await assertRejects(() => conn.startTls(tls), TypeError, "has TLS already");
    for await (const chunk of conn) await conn.write(chunk);
    await conn.close();
    assertEquals(signal.aborted, true);
  });
  await plainServing(Handler, async (server) => {
    const client = await connect(`tcp://localhost:${server.port}`);
    await client.write("start");
    await client.read();
    await client.startTls({ ca: authority().cert });
    assertEquals(client.tls!.peerCertificate!.commonName, "localhost");
    const sent = "0123456789".repeat(50_000);
    void client.write(sent);
    void client.closeWrite();
    let received = "";
    for await (const chunk of client) received += new TextDecoder().decode(chunk);
    assertEquals(received, sent);
    await client.close();
    await until(() => server.activeRequests.size === 0);
    assertEquals(server.errors, []);
  });
});

it("STARTTLS: a handshake that fails or takes too long closes the connection and says so", async () => {
  const outcomes: string[] = [];
  const Handler = handler(async (conn) => {
    const { signal } = conn;
    const error = await assertRejects(() => conn.startTls({ ...local(), handshakeTimeout: 50 }), SocketError);
    outcomes.push(error.code);
    assertEquals(conn.error, error);
    assertEquals(signal.reason, error);
    await conn.closed;
    await assertRejects(() => conn.read(), SocketError);
  });
  await plainServing(Handler, async (server) => {
    const sockets = [await plain(server.port), await plain(server.port), await plain(server.port)];
    sockets[0]!.write("garbage!");
    sockets[1]!.destroy();
    sockets[2]!.resume();
    await until(() => outcomes.length === 3);
    await until(() => server.activeRequests.size === 0);
    assertEquals(outcomes.sort(), ["ECONNRESET", "EPROTO", "ETIMEDOUT"]);
    assertEquals(server.errors, []);
    for (const socket of sockets) socket.destroy();
  });
});

it("STARTTLS: bad options and a read that waits are errors that leave the connection as it was", async () => {
  const Handler = handler(async (conn) => {
    await assertRejects(() => conn.startTls({} as TlsOptions), TypeError, "tls.cert");
    await assertRejects(() => conn.startTls({ ...local(), key: certificate("b.test").key }), TypeError, "is not the key");
    conn.timeout = 10;
    await assertRejects(() => conn.read(), SocketError);
    await assertRejects(() => conn.startTls(local()), TypeError, "a read is waiting");
    conn.timeout = 0;
    await conn.write("fine");
    for await (const chunk of conn) await conn.write(chunk);
  });
  await plainServing(Handler, async (server) => {
    const client = await openSocket(server.serverAddress);
    assertEquals(await client.read(4), "fine");
    await client.write("x");
    assertEquals(await client.read(1), "x");
    await client.end();
    await client.readAll();
    assertEquals(server.errors, []);
  });
});

// Other programs.

/** As little of HTTP as curl takes. */
class HttpHandler extends StreamRequestHandler {
  override async handle(): Promise<void> {
    let length = 0;
    for (let line; (line = await this.rfile.readLine()) !== "" && line !== null;) {
      length = Number(/^content-length: (\d+)$/i.exec(line)?.[1] ?? length);
    }
    let size = 0;
    for (let chunk; size < length && (chunk = await this.rfile.read()) !== null;) size += chunk.length;
    const body = length > 0 ? `${size}` : "0123456789abcdef".repeat(1 << 18);
    await this.wfile.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n`);
    await this.wfile.write(body);
  }
}

testWith(
  "curl",
  "tls: curl: 4 MiB down, 4 MiB up, with and without a certificate of its own",
  () =>
    withFolder((folder) =>
      serving({ ...local(), ca: authority().cert, clientCertificate: "request" }, HttpHandler, async (server) => {
        const url = `https://localhost:${server.port}/`;
        const { cert, key } = certificate("client");
        const args = ["-sS", "--cacert", authority().cert, "--connect-to", `localhost:${server.port}:127.0.0.1:${server.port}`];
        const file = join(folder, "big");
        for (const more of [[], ["--cert", cert, "--key", key], ["--tls-max", "1.2"]]) {
          const down = await run("curl", [...args, ...more, "-o", file, url]);
          assertEquals([down.status, down.stderr], [0, ""]);
          assertEquals(readFileSync(file, "utf8"), "0123456789abcdef".repeat(1 << 18));
          const up = await run("curl", [...args, ...more, "-H", "expect:", "--data-binary", `@${file}`, url]);
          assertEquals([up.status, up.stderr, up.stdout], [0, "", String(1 << 22)]);
        }
        assertEquals(server.errors, []);
        // A stranger's certificate is no good, and neither is the server's to who does not know its authority.
        const stranger = certificate("client", "mallory");
        assert((await run("curl", [...args, "--cert", stranger.cert, "--key", stranger.key, url])).status !== 0);
        assertEquals((await run("curl", ["-sS", url])).status, 60);
      })
    ),
);

testWith("sslscan", "tls: sslscan: no protocol below TLS 1.2, no weak cipher", async () => {
  for (const kind of ["ec", "rsa"] as const) {
    await serving(certificate("localhost", "ca", kind), EchoHandler, async (server) => {
      const { stdout } = await run("sslscan", ["--no-colour", "--no-groups", `127.0.0.1:${server.port}`]);
      const states = [...stdout.matchAll(/^(SSLv\d|TLSv[\d.]+)\s+(enabled|disabled)/gm)].map(([, what, state]) =>
        `${what} ${state}`
      );
      assertEquals(states, [
        "SSLv2 disabled",
        "SSLv3 disabled",
        "TLSv1.0 disabled",
        "TLSv1.1 disabled",
        "TLSv1.2 enabled",
        "TLSv1.3 enabled",
      ]);
      const ciphers = [...stdout.matchAll(/^(?:Preferred|Accepted)\s+TLSv1\.[23]\s+\d+ bits\s+(\S+)/gm)].map(([, cipher]) =>
        cipher!
      );
      assert(ciphers.length >= 6, stdout);
      for (const cipher of ciphers) assert(/^(TLS_|ECDHE-(ECDSA|RSA)-).*(GCM|POLY1305)/.test(cipher), cipher);
      assert(/Session renegotiation not supported/.test(stdout), stdout);
      assert(!/ vulnerable/.test(stdout.replaceAll("not vulnerable", "")), stdout);
    });
  }
});

/** A record with a ClientHello that asks for what nobody has; enough to begin a handshake. */
function clientHello(): Uint8Array {
  const body = [3, 3, ...new Array(32).fill(7), 0, 0, 2, 0xc0, 0x2b, 1, 0];
  return new Uint8Array([22, 3, 1, 0, body.length + 4, 1, 0, 0, body.length, ...body]);
}

async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "sockets-tls-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
