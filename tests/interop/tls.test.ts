/** TLS with clients that nobody here wrote: openssl, curl and sslscan. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  connect,
  getRuntime,
  type InetAddress,
  SocketError,
  StreamReader,
  StreamRequestHandler,
  type TCPServer,
  type TlsInfo,
} from "@sockets/server";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { authority, certificate, expiring } from "../conformance/certificates.ts";
import TellingHandler from "../conformance/handlers/tls.ts";
import { EchoHandler, gate, handler, until } from "../conformance/serving.ts";
import { type Middle, withMiddle } from "../conformance/tls_middle.ts";
import { ALERT, DATA, Forger, HANDSHAKE } from "../conformance/tls_records.ts";
import { local, mailHandler, type Observed, plainServing, serving } from "../conformance/tls_serving.ts";
import { Program, run, testWith, withFolder } from "./programs.ts";

const { capabilities } = getRuntime();
const withOpenssl = (what: string, body: () => Promise<void>) => testWith("openssl", `tls: openssl: ${what}`, body);

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

/** Resumes a session: what a {@linkcode TellingHandler} tells of it, or `null` when the server refuses. */
async function resume(port: number, args: string[], session: string): Promise<TlsInfo | null> {
  const client = new SClient(port, ...args, "-sess_in", session);
  // It throws when the program ends without a line.
  const line = await client.line().catch(() => null);
  await client.leave();
  return line === null ? null : JSON.parse(line) as TlsInfo;
}

withOpenssl(
  "a client certificate that has expired doesn't come back in by the session that it began",
  () =>
    withFolder((folder) =>
      serving({ ...local(), ca: authority().cert, clientCertificate: "require" }, TellingHandler, async (server) => {
        const at = new Date(Math.ceil(Date.now() / 1000) * 1000 + 6000);
        const shown = given(expiring("client", at));
        const versions = ["-tls1_2", "-tls1_3"];
        for (const version of versions) {
          const session = join(folder, version);
          const first = new SClient(server.port, version, ...shown, "-sess_out", session);
          await first.told();
          first.send("x\n");
          await first.line();
          await first.leave();
          assertEquals((await resume(server.port, [version, ...shown], session))?.resumed, true);
        }
        await until(() => Date.now() > at.getTime());
        for (const version of versions) {
          const refused = server.failures.length;
          assertEquals(await resume(server.port, [version, ...shown], join(folder, version)), null);
          await until(() => server.failures.length > refused);
          const [code, message] = server.failures.at(-1)!;
          assertEquals(code, "EPROTO");
          assert(/expired/i.test(message), message);
        }
        assertEquals(server.stats.accepted, 2 * versions.length);
      })
    ),
);

withOpenssl(
  "a client that was refused doesn't come in by the session that it was given before that",
  () =>
    withFolder((folder) =>
      serving({ ...local(), ca: authority().cert, clientCertificate: "request" }, TellingHandler, async (server) => {
        for (const version of ["-tls1_2", "-tls1_3"]) {
          const session = join(folder, version);
          const args = [version, ...given(certificate("client", "mallory"))];
          const first = new SClient(server.port, ...args, "-sess_out", session, "-ign_eof");
          assertEquals((await first.finish()).stdout, "");
          if (existsSync(session)) assertEquals(await resume(server.port, args, session), null);
        }
        assertEquals(server.stats.accepted, 0);
      })
    ),
);

withOpenssl(
  "with other authorities after reloadTls(), a session stands in for no certificate that they don't vouch for",
  () =>
    withFolder((folder) =>
      serving({ ...local(), ca: authority().cert, clientCertificate: "require" }, TellingHandler, async (server) => {
        const versions = ["-tls1_2", "-tls1_3"];
        const shown = given(certificate("client"));
        for (const version of versions) {
          const first = new SClient(server.port, version, ...shown, "-sess_out", join(folder, version));
          await first.told();
          first.send("x\n");
          await first.line();
          await first.leave();
        }
        await server.reloadTls({ ...local(), ca: authority("other").cert, clientCertificate: "require" });
        for (const version of versions) {
          assertEquals(await resume(server.port, [version, ...shown], join(folder, version)), null);
          // Nor for one that nobody has shown.
          assertEquals(await resume(server.port, [version], join(folder, version)), null);
          const known = new SClient(server.port, version, ...given(certificate("client", "other")));
          assertEquals((await known.told()).peerCertificate?.issuer, "CN=other");
          await known.leave();
        }
        assertEquals(server.stats.accepted, 2 * versions.length);
      })
    ),
);

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

// What a peer does to one that is done with the handshake.

withOpenssl(
  "a client that wants to renegotiate is refused, and told of by EPROTO",
  () =>
    serving(local(), TellingHandler, async (server) => {
      const client = new SClient(server.port, "-tls1_2");
      await client.told();
      for (let i = 0; i < 60; i++) client.send("R\n");
      await client.exited;
      await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
      assertInstanceOf(server.errors[0], SocketError, String(server.errors[0]));
      assertEquals(server.errors[0].code, "EPROTO");
    }),
);

withOpenssl("a server that wants to renegotiate is refused", async () => {
  const server = new Program("openssl", [
    ...["s_server", "-accept", "127.0.0.1:0", "-cert", local().cert, "-key", local().key, "-tls1_2", "-state"],
  ]);
  try {
    let line = "";
    while (!line.startsWith("ACCEPT")) line = await server.line();
    const tls = { ca: authority().cert, servername: "localhost" };
    const client = await connect(`tls://127.0.0.1:${/:(\d+)$/.exec(line)![1]}`, { tls });
    await client.write("hello\n");
    while (line !== "hello") line = await server.line();
    server.send("r\n");
    const error = await assertRejects(() => client.read(), SocketError);
    assertEquals([error.code, client.error], ["EPROTO", error]);
    assertEquals(server.stderr.split("read client hello").length, 2, server.stderr);
  } finally {
    server.kill("SIGKILL");
    await server.exited;
  }
});

/** A peer that has the keys, and sends what no client does. */
function forged(use: (forger: Forger, middle: Middle, server: TCPServer & Observed) => Promise<void>): Promise<void> {
  return withFolder((folder) =>
    serving(local(), TellingHandler, (server) =>
      withMiddle(server.port, async (middle) => {
        let records = 0;
        let rest: Uint8Array = new Uint8Array(0);
        middle.fromClient = (bytes) => {
          rest = new Uint8Array([...rest, ...bytes]);
          for (let size; rest.length >= 5 && (size = 5 + rest[3]! * 256 + rest[4]!) <= rest.length; rest = rest.subarray(size)) {
            if (rest[0] === DATA) records++;
          }
          return bytes;
        };
        const keys = join(folder, "keys");
        const client = new SClient(middle.port, "-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-keylogfile", keys);
        try {
          await client.told();
          client.send("hello\n");
          assertEquals(await client.line(), "hello");
          // The first is the end of the handshake.
          await use(new Forger(readFileSync(keys, "utf8"), records - 1), middle, server);
        } finally {
          client.kill("SIGKILL");
          await client.exited;
        }
      }))
  );
}

for (
  const [what, kind, content] of [
    ["an alert", ALERT, [2, 40]],
    ["a ClientHello", HANDSHAKE, [1, 0, 0, 0]],
    ["a HelloRequest", HANDSHAKE, [0, 0, 0, 0]],
    ["a handshake message without an end", HANDSHAKE, [24, 255, 255, 255]],
    ["a record of no kind", 0, [1]],
  ] as const
) {
  withOpenssl(
    `after the handshake, ${what} that is encrypted as it should be ends the connection`,
    () =>
      forged(async (forger, middle, server) => {
        middle.toServer(forger.record(kind, new Uint8Array(content)));
        await middle.serverGone;
        await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
        assertEquals([(server.errors[0] as SocketError).code, server.stats.ended.reset], ["EPROTO", 1]);
      }),
  );
}

withOpenssl("after the handshake, key updates are obeyed, but not without end", () =>
  forged(async (forger, middle, server) => {
    // The peer's own client would not understand the answer.
    middle.fromServer = () => new Uint8Array(0);
    const received = server.stats.bytesRead;
    for (let i = 0; i < 5; i++) middle.toServer(forger.keyUpdate());
    middle.toServer(forger.record(DATA, new Uint8Array(10)));
    await until(() => server.stats.bytesRead >= received + 10);
    assertEquals([server.stats.active, server.errors], [1, []]);
    middle.toServer(Buffer.concat(Array.from({ length: 12_000 }, () => forger.keyUpdate())));
    await middle.serverGone;
    await until(() => server.errors.length === 1 && server.activeRequests.size === 0);
    assertEquals([(server.errors[0] as SocketError).code, server.stats.ended.reset], ["EPROTO", 1]);
  }));

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
    const unverified = [{}, { servername: "b.test" }, { servername: "192.0.2.1" }, { ca, servername: "b.test" }];
    for (const tls of unverified) {
      const trusting = await connect(`tcp://127.0.0.1:${port}`, { tls: { ...tls, rejectUnauthorized: false } });
      assertEquals(trusting.tls!.peerCertificate!.commonName, "localhost");
      // An IP address is no name to ask for.
      assertEquals(trusting.tls!.servername, tls.servername === "b.test" ? "b.test" : null);
      await trusting.write("abc\n");
      assertEquals(await new StreamReader(trusting).readLine(), "cba");
      await trusting.close();
      // That it was let pass is no reason to trust it.
      await refused({ ca: authority("mallory").cert });
      await refused({ ...tls, servername: "b.test" });
    }
  } finally {
    server.kill("SIGKILL");
    await server.exited;
  }
});

// STARTTLS.

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
