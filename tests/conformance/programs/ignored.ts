/**
 * Calls everything that returns a promise, on connections that are lost or closed at the worst moment, and awaits nothing. Prints what became
 * an unhandled rejection or an uncaught exception, by the name of the call; nothing should.
 */
import { bind, type Connection, type DatagramSocket, StreamReader, StreamWriter } from "@sockets/server";
import { Readable, Writable } from "node:stream";
import { AsyncTCPServer, AsyncUnixStreamServer } from "@sockets/server";
import { adapters, tlsAdapters } from "../adapters.ts";
import { handler } from "../serving.ts";

const [runtimeName, transport] = process.argv.slice(2);
const adapter = [...adapters, ...tlsAdapters].find(({ runtime, name }) => runtime.name === runtimeName && name === transport)!;
const failures: string[] = [];
let current = "";
process.on("unhandledRejection", (error) => void failures.push(`${current}: unhandled ${error}`));
process.on("uncaughtException", (error) => void failures.push(`${current}: uncaught ${error}`));

const LARGE = new Uint8Array(8 << 20);
const turns = async (count: number) => {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setTimeout(resolve));
};

/** What is called, and not awaited. */
const calls: Record<string, (conn: Connection) => unknown> = {
  "read()": (conn) => conn.read(),
  "two reads": (conn) => [conn.read(), conn.read()],
  "readInto()": (conn) => conn.readInto(new Uint8Array(10)),
  "readInto() without room": (conn) => conn.readInto(new Uint8Array(0)),
  "readInto() of text": (conn) => conn.readInto("" as unknown as Uint8Array),
  "next()": (conn) => conn[Symbol.asyncIterator]().next(),
  "forEach()": (conn) => conn.forEach(() => {}),
  "forEach() that writes": (conn) => conn.forEach((chunk) => conn.write(chunk)),
  "write()": (conn) => conn.write(LARGE),
  "many writes": (conn) => Array.from({ length: 20 }, () => conn.write(LARGE.subarray(0, 300_000))),
  "closeWrite()": (conn) => conn.closeWrite(),
  "write() and closeWrite()": (conn) => [conn.write(LARGE), conn.closeWrite()],
  "write() after closeWrite()": (conn) => [conn.closeWrite(), conn.write("x")],
  "close()": (conn) => [conn.write(LARGE), conn.close()],
  "close({ linger })": (conn) => conn.close({ linger: 20 }),
  "asyncDispose": (conn) => conn[Symbol.asyncDispose](),
  "closed": (conn) => conn.closed,
  "signal": (conn) => conn.signal,
  "startTls() without options": (conn) => conn.startTls(undefined as never),
  "startTls() without a certificate": (conn) => conn.startTls({ cert: "/nowhere.pem", key: "/nowhere.key" }),
  "startTls() and what it forbids": (
    conn,
  ) => [conn.startTls({ cert: "/no.pem", key: "/no.key" }), conn.write("x"), conn.closeWrite()],
  "reader.read()": (conn) => new StreamReader(conn).read(),
  "reader.read(0)": (conn) => new StreamReader(conn).read(0),
  "reader.readLine()": (conn) => new StreamReader(conn).readLine(),
  "reader.readExactly()": (conn) => new StreamReader(conn).readExactly(10),
  "reader.readUntil()": (conn) => new StreamReader(conn).readUntil("\n"),
  "reader.readUntil(10)": (conn) => new StreamReader(conn).readUntil(10 as unknown as string),
  "two readers": (conn) => [new StreamReader(conn).readLine(), new StreamReader(conn).readLine()],
  "writer.write()": (conn) => new StreamWriter(conn).write(LARGE),
  "writer.flush()": (conn) => {
    const writer = new StreamWriter(conn, LARGE.length);
    return [writer.write(LARGE), writer.flush()];
  },
  "writer.write() beyond its buffer": (conn) => {
    const writer = new StreamWriter(conn, 1 << 20);
    return [writer.write("x"), writer.write(LARGE), writer.write(LARGE)];
  },
  "readable: read()": (conn) => conn.readable.getReader().read(),
  "readable: two reads": (conn) => {
    const reader = conn.readable.getReader();
    return [reader.read(), reader.read(), reader.closed];
  },
  "readable: cancel()": (conn) => conn.readable.cancel(),
  "readable: cancel() while reading": (conn) => {
    const reader = conn.readable.getReader();
    return [reader.read(), reader.cancel()];
  },
  "readable: cancel() while locked": (conn) => [conn.readable.getReader(), conn.readable.cancel()],
  "readable: pipeTo()": (conn) => conn.readable.pipeTo(new WritableStream()),
  "readable: pipeTo() that fails": (conn) =>
    conn.readable.pipeTo(new WritableStream({ start: (it) => it.error(new Error("no")) })),
  "writable: write()": (conn) => conn.writable.getWriter().write(LARGE),
  "writable: two writes and close()": (conn) => {
    const writer = conn.writable.getWriter();
    return [writer.write(LARGE), writer.write(LARGE), writer.close(), writer.closed, writer.ready];
  },
  "writable: write() of a number": (conn) => conn.writable.getWriter().write(1 as unknown as Uint8Array),
  "writable: abort()": (conn) => conn.writable.abort(),
  "writable: abort() with a writer": (conn) => {
    const writer = conn.writable.getWriter();
    return [writer.write(LARGE), writer.abort(new Error("no"))];
  },
  "writable: close()": (conn) => conn.writable.close(),
  "writable: close() twice": (conn) => [conn.writable.close(), conn.writable.close()],
};

/** What happens to the connection then. */
const ends: Record<string, (conn: Connection, peer: Connection) => void> = {
  "the peer resets": (_conn, peer) => peer.abort(),
  "it is aborted": (conn) => conn.abort(),
  "it is closed": (conn) => void conn.close(),
  "the peer closes": (_conn, peer) => void peer.close(),
};

let accepted = Promise.withResolvers<Connection>();
let over = Promise.withResolvers<void>();
const Server = adapter.transport === "tcp" ? AsyncTCPServer : AsyncUnixStreamServer;
const options = { ...adapter.options, shutdownTimeout: 0 };
const server = new Server(
  adapter.freshAddress(),
  handler((conn) => {
    accepted.resolve(conn);
    return over.promise;
  }),
  options,
);
// What the handler is told is no news here.
server.handleError = () => {};
await server.activate();
const serving = server.serveForever();

for (const [what, call] of Object.entries(calls)) {
  for (const [how, end] of Object.entries(ends)) {
    for (const moment of ["before", "after"]) {
      for (const timeout of [0, 1]) {
        current = `${what}, ${how} ${moment} it, timeout ${timeout}`;
        accepted = Promise.withResolvers();
        over = Promise.withResolvers();
        const peer = await adapter.connect(server);
        const conn = await accepted.promise;
        conn.timeout = timeout;
        try {
          if (moment === "before") {
            end(conn, peer);
            await turns(2);
          }
          void call(conn);
        } catch (error) {
          if (!(error instanceof TypeError)) failures.push(`${current}: thrown ${error}`);
        }
        if (moment === "after") end(conn, peer);
        await turns(3);
        // Every later call fails too, and is ignored too.
        void conn.read();
        void conn.write(LARGE);
        void conn.closeWrite();
        over.resolve();
        peer.abort();
        await turns(1);
        conn.abort();
      }
    }
  }
}

/** Through `node:stream`: the handler is done before the stream is. */
const behind: Record<string, (conn: Connection) => void> = {
  "Writable.fromWeb(): write() and end()": (conn) => {
    const stream = Writable.fromWeb(conn.writable as never);
    stream.write("by");
    stream.end("e");
  },
  "Writable.fromWeb(): much": (conn) => {
    const stream = Writable.fromWeb(conn.writable as never);
    for (let i = 0; i < 8; i++) stream.write(LARGE.subarray(0, 100_000));
    stream.end("bye");
  },
  "Writable.fromWeb(): no end()": (conn) => void Writable.fromWeb(conn.writable as never).write("bye"),
  "a writer": (conn) => {
    const writer = conn.writable.getWriter();
    void writer.write(new TextEncoder().encode("b"));
    void writer.write(new TextEncoder().encode("ye"));
    void writer.close();
  },
  "Readable.fromWeb()": (conn) => {
    Readable.fromWeb(conn.readable as never).resume();
    void conn.write("bye");
  },
};
for (const [what, handle] of Object.entries(behind)) {
  for (const how of ["reads", "resets"]) {
    current = `${what}, the handler is done, the peer ${how}`;
    accepted = Promise.withResolvers();
    over = Promise.withResolvers();
    const peer = await adapter.connect(server);
    const conn = await accepted.promise;
    handle(conn);
    over.resolve();
    if (how === "resets") {
      await turns(1);
      peer.abort();
    } else {
      let received = "";
      for await (const chunk of peer) received = (received + new TextDecoder().decode(chunk)).slice(-3);
      if (received !== "bye") failures.push(`${current}: the peer got ${JSON.stringify(received)}`);
      await peer.close();
    }
    await turns(5);
  }
}
await server.shutdown({ drain: 0 });
await serving;
await server.serverClose();

/** Datagrams. */
const { runtime } = adapter;
const sockets: Record<string, (socket: DatagramSocket) => unknown> = {
  "receive()": (socket) => socket.receive(),
  "two receives": (socket) => [socket.receive(), socket.receive()],
  "a receive() that times out": (socket) => {
    socket.timeout = 1;
    return socket.receive();
  },
  "send() of too much": (socket) => socket.send(LARGE, "udp://127.0.0.1:9"),
  "send() to nobody": (socket) => [1, 2, 3].map(() => socket.send("x", "udp://127.0.0.1:9")),
  "reply() to nobody": (socket) => socket.reply({ address: null } as never, "x"),
  "joinMulticast()": (socket) => socket.joinMulticast("127.0.0.1"),
  "leaveMulticast()": (socket) => socket.leaveMulticast("239.1.2.3"),
  "joinMulticast() of a number": (socket) => socket.joinMulticast(5 as unknown as string),
  "close() twice": (socket) => [socket.close(), socket.close()],
  "all after close()": (
    socket,
  ) => [socket.close(), socket.send("x", "udp://127.0.0.1:9"), socket.receive(), socket.joinMulticast("239.1.2.3")],
};
for (const [what, call] of Object.entries(sockets)) {
  current = `datagram socket: ${what}`;
  const socket = await bind("udp://127.0.0.1:0", { runtime });
  void call(socket);
  await turns(3);
  void socket.close();
  await turns(2);
}
console.log(JSON.stringify(failures));
process.exit(0);
