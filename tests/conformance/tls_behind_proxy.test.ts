/** TLS behind a load balancer that passes it through: the PROXY protocol's header comes before the handshake, in the same packet even. */
import { assertEquals, assertMatch } from "@std/assert";
import { getRuntime, type InetAddress, StreamRequestHandler } from "@sockets/server";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { connect as tlsConnect } from "node:tls";
import { readFileSync } from "node:fs";
import { authority } from "./certificates.ts";
import { until } from "./serving.ts";
import { local, plain, serving } from "./tls_serving.ts";

const { name } = getRuntime();
const HEADER = "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";

/** What is written has the header before it, in the first write. */
function behindHeader(socket: Socket): Duplex {
  let first = true;
  const stream = new Duplex({
    read: () => void socket.resume(),
    write(chunk, _encoding, done) {
      socket.write(first ? Buffer.concat([Buffer.from(HEADER), chunk]) : chunk, done);
      first = false;
    },
    final: (done) => void socket.end(done),
  });
  socket.on("data", (chunk) => {
    if (!stream.push(chunk)) socket.pause();
  });
  socket.on("end", () => stream.push(null));
  return stream;
}

class Client extends StreamRequestHandler {
  override async handle(): Promise<void> {
    const { hostname, port } = this.clientAddress as InetAddress;
    await this.wfile.write(`${hostname} ${port} ${this.request.tls?.servername} ${this.request.proxy?.version}\n`);
    for await (const line of this.rfile) await this.wfile.write(`${line}\n`);
  }
}

test(`${name} tls: behind a PROXY protocol header the client's address is the client's, and its handshake is done`, () =>
  serving(
    local(),
    Client,
    async (server) => {
      for (let i = 0; i < 5; i++) {
        const socket = tlsConnect({
          socket: behindHeader(await plain(server.port)),
          ca: readFileSync(authority().cert, "utf8"),
          servername: "localhost",
        });
        let received = "";
        socket.setEncoding("utf8").on("data", (text: string) => received += text);
        await until(() => received.endsWith("\n"));
        assertMatch(received, /^192\.0\.2\.1 56324 localhost 1\n$/);
        received = "";
        socket.write("over it\n");
        await until(() => received.endsWith("\n"));
        assertEquals(received, "over it\n");
        socket.end();
      }
      await until(() => server.activeRequests.size === 0);
      assertEquals(server.stats.refused, 0);
    },
    undefined,
    { proxyProtocol: true },
  ));

test(`${name} tls: a handshake that fails behind a header is told with the client's address`, () =>
  serving(
    local(),
    Client,
    async (server) => {
      const socket = await plain(server.port);
      socket.write(`${HEADER}GET / HTTP/1.0\r\n\r\n`);
      await until(() => server.failures.length > 0);
      const [code, , address] = server.failures[0]!;
      assertEquals([code, (address as InetAddress).hostname], ["EPROTO", "192.0.2.1"]);
      assertEquals(server.stats.ended["handshake failed"], 1);
      socket.destroy();
    },
    undefined,
    { proxyProtocol: true },
  ));
