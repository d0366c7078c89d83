/** Echo on the running runtime's own API, as directly as it can be written: what ours is measured against. */
import type * as net from "node:net";

interface RawSocket {
  write(bytes: Uint8Array): number;
  end(): void;
}
interface Conn {
  setNoDelay(): void;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}
const { Bun, Deno } = globalThis as {
  Bun?: { listen(options: unknown): { port: number } };
  Deno?: { listen(options: unknown): AsyncIterable<Conn> & { addr: { port: number } } };
};

function listening(port: number): void {
  console.log(`listening tcp://127.0.0.1:${port}`);
}

if (Deno !== undefined) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listening(listener.addr.port);
  for await (const conn of listener) {
    conn.setNoDelay();
    void echo(conn);
  }
} else if (Bun !== undefined) {
  // A socket that doesn't take everything would need a queue; with the bench's sizes it takes it all or the bench notices.
  const unsent = new Map<RawSocket, Uint8Array[]>();
  const send = (socket: RawSocket, bytes: Uint8Array) => {
    const queue = unsent.get(socket);
    if (queue !== undefined) return void queue.push(bytes.slice());
    const sent = Math.max(0, socket.write(bytes));
    if (sent < bytes.length) unsent.set(socket, [bytes.slice(sent)]);
  };
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data: send,
      drain(socket: RawSocket) {
        const queue = unsent.get(socket);
        unsent.delete(socket);
        for (const bytes of queue ?? []) send(socket, bytes);
      },
      error() {},
    },
  });
  listening(listener.port);
} else {
  const server = process.getBuiltinModule("node:net").createServer({ noDelay: true }, (socket) => {
    socket.on("data", (chunk) => socket.write(chunk));
    socket.on("error", () => {});
  });
  server.listen(0, "127.0.0.1", () => listening((server.address() as net.AddressInfo).port));
}

async function echo(conn: Conn): Promise<void> {
  const buffer = new Uint8Array(65_536);
  try {
    for (;;) {
      const size = await conn.read(buffer);
      if (size === null) break;
      for (let sent = 0; sent < size;) sent += await conn.write(buffer.subarray(sent, size));
    }
  } catch {
    // The load generator resets its connections.
  }
  conn.close();
}
