/**
 * What ours_handlers.ts does, on the running runtime's own API and as directly as it can be written: `raw_handlers.ts
 * attacked|lines|once|sink|source`.
 */
import type * as net from "node:net";

interface Conn {
  setNoDelay(): void;
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}
interface BunSocket {
  data: { rest: string; unsent: Uint8Array | null };
  write(bytes: Uint8Array | string): number;
  end(): void;
  readonly readyState: number;
}
const { Bun, Deno } = globalThis as {
  Bun?: { listen(options: unknown): { port: number } };
  Deno?: { listen(options: unknown): AsyncIterable<Conn> & { addr: { port: number } } };
};
const mode = process.argv[2] as "attacked" | "lines" | "once" | "sink" | "source";
const BLOCK = new Uint8Array(65_536);
const encoder = new TextEncoder();

function listening(port: number): void {
  console.log(`listening tcp://127.0.0.1:${port}`);
}

/** The lines in a text, each handled as a line of its own, and what is left. */
function answer(text: string, send: (line: string) => void): string {
  let start = 0;
  for (let end; (end = text.indexOf("\n", start)) !== -1; start = end + 1) send(text.slice(start, end) + "\n");
  return text.slice(start);
}

if (Deno !== undefined) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listening(listener.addr.port);
  for await (const conn of listener) {
    conn.setNoDelay();
    void serveDeno(conn);
  }
} else if (Bun !== undefined) {
  const fill = (socket: BunSocket) => {
    while (socket.write(BLOCK) === BLOCK.length);
  };
  const send = (socket: BunSocket, text: string) => {
    const bytes = encoder.encode(text);
    const { unsent } = socket.data;
    const all = unsent === null ? bytes : new Uint8Array([...unsent, ...bytes]);
    const sent = unsent === null ? Math.max(0, socket.write(all)) : 0;
    socket.data.unsent = sent < all.length ? all.subarray(sent) : null;
  };
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket: BunSocket) {
        socket.data = { rest: "", unsent: null };
        if (mode === "source") fill(socket);
      },
      data(socket: BunSocket, chunk: Uint8Array) {
        if (mode === "sink" || mode === "source") return;
        if (mode === "attacked") {
          socket.write(chunk);
          if (chunk.length === 1) socket.end();
          return;
        }
        const text = decoders.get(socket) ?? new TextDecoder();
        decoders.set(socket, text);
        socket.data.rest = answer(socket.data.rest + text.decode(chunk, { stream: true }), (line) => {
          send(socket, line);
          if (mode === "once") socket.end();
        });
      },
      drain(socket: BunSocket) {
        if (mode === "source") return fill(socket);
        const { unsent } = socket.data;
        if (unsent === null) return;
        const sent = Math.max(0, socket.write(unsent));
        socket.data.unsent = sent < unsent.length ? unsent.subarray(sent) : null;
      },
      close: (socket: BunSocket) => void decoders.delete(socket),
      error() {},
    },
  });
  const decoders = new Map<BunSocket, TextDecoder>();
  listening(listener.port);
} else {
  const server = process.getBuiltinModule("node:net").createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => {});
    if (mode === "sink") return void socket.resume();
    if (mode === "source") {
      const fill = () => {
        while (socket.write(BLOCK));
      };
      socket.resume().on("drain", fill);
      return fill();
    }
    if (mode === "attacked") {
      return void socket.on("data", (chunk) => {
        socket.write(chunk);
        if (chunk.length === 1) socket.end();
      });
    }
    let rest = "";
    socket.setEncoding("utf8").on("data", (text) => {
      rest = answer(rest + text, (line) => {
        socket.write(line);
        if (mode === "once") socket.end();
      });
    });
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => listening((server.address() as net.AddressInfo).port));
}

async function writeAll(conn: Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await conn.write(sent === 0 ? bytes : bytes.subarray(sent));
}

async function serveDeno(conn: Conn): Promise<void> {
  try {
    if (mode === "source") { for (;;) await writeAll(conn, BLOCK); }
    const buffer = new Uint8Array(65_536);
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const size = await conn.read(buffer);
      if (size === null) break;
      if (mode === "sink") continue;
      if (mode === "attacked") {
        await writeAll(conn, buffer.subarray(0, size));
        if (size === 1) break;
        continue;
      }
      const lines: string[] = [];
      rest = answer(rest + decoder.decode(buffer.subarray(0, size), { stream: true }), (line) => lines.push(line));
      for (const line of lines) await writeAll(conn, encoder.encode(line));
      if (mode === "once" && lines.length > 0) break;
    }
  } catch {
    // The load generator resets its connections.
  }
  conn.close();
}
