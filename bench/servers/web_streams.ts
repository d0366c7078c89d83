/** Echo on the web streams of the runtime's connections, where it has them. */
import type * as net from "node:net";

interface Conn {
  setNoDelay(): void;
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
}
const { Bun, Deno } = globalThis as {
  Bun?: object;
  Deno?: { listen(options: unknown): AsyncIterable<Conn> & { addr: { port: number } } };
};

// The load generator resets its connections.
const echo = ({ readable, writable }: Conn) => void readable.pipeTo(writable).catch(() => {});

if (Bun !== undefined) {
  console.log("unsupported its sockets have none");
} else if (Deno !== undefined) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  console.log(`listening tcp://127.0.0.1:${listener.addr.port}`);
  for await (const conn of listener) {
    conn.setNoDelay();
    echo(conn);
  }
} else {
  const { Duplex } = process.getBuiltinModule("node:stream");
  const server = process.getBuiltinModule("node:net").createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => {});
    echo(Duplex.toWeb(socket) as unknown as Conn);
  });
  server.listen(0, "127.0.0.1", () => console.log(`listening tcp://127.0.0.1:${(server.address() as net.AddressInfo).port}`));
}
