/** A peer in a thread of its own, which goes on while the test's thread is held up. It does the steps that it is given, one after the other. */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { parentPort, workerData } from "node:worker_threads";

/** What a peer does. */
export type Step =
  | "connect" // to the server
  | "listen" // in place of connecting; tells its port
  | "secure" // begins TLS
  | "hear" // waits for bytes
  | "wait" // until the test's thread is held up
  | "drain" // reads all there is to come, from now on
  | "done" // tells the thread that is held up
  | "end" // reads to the end of the stream, and tells how many bytes there were
  | { say: string } // sends it; to a datagram socket's port
  | { tell: string }; // tells the test

/** What a peer is started with. */
export interface PeerStart {
  readonly steps: readonly Step[];
  readonly where: { readonly port: number; readonly host: string } | { readonly path: string };
  readonly datagrams: boolean;
  /** Who vouches for the server. */
  readonly ca: string | null;
  /** Whether the test's thread is held up, and whether the peer is done. */
  readonly flags: Int32Array;
}

const { steps, where, datagrams, ca, flags } = workerData as PeerStart;
let socket!: Socket;
let draining = false;
let bytes = 0;
let wake = (): void => {};

function adopt(next: Socket): void {
  socket = next;
  socket.on("error", () => {});
}

/** Reads from now on; without it, what comes stays where it is. */
function listen(): void {
  socket.removeAllListeners("data");
  socket.on("data", (chunk: Uint8Array) => {
    bytes += chunk.length;
    wake();
  });
}

for (const step of steps) {
  if (step === "connect") {
    adopt(connect({ ...where, allowHalfOpen: true }));
    await once(socket, "connect");
  } else if (step === "listen") {
    const server = createServer({ allowHalfOpen: true }, adopt).listen(0, "127.0.0.1");
    await once(server, "listening");
    parentPort!.postMessage((server.address() as { port: number }).port);
  } else if (step === "secure") {
    adopt(tlsConnect({ socket, ca: readFileSync(ca!, "utf8"), servername: "localhost" }));
    // The beginning of the handshake is on its way.
    await new Promise((resolve) => setTimeout(resolve, 20));
  } else if (step === "hear") {
    listen();
    const heard = bytes;
    while (bytes === heard) await new Promise<void>((resolve) => wake = resolve);
  } else if (step === "wait") Atomics.wait(flags, 0, 0);
  else if (step === "drain") {
    draining = true;
    listen();
  } else if (step === "done") {
    Atomics.store(flags, 1, 1);
  } else if (step === "end") {
    if (!draining) listen();
    await once(socket, "end");
    parentPort!.postMessage(bytes);
  } else if ("tell" in step) parentPort!.postMessage(step.tell);
  else if (!datagrams) await new Promise((resolve) => socket.write(step.say, resolve));
  else {
    const sender = createSocket("udp4");
    await new Promise((resolve) => sender.send(step.say, "port" in where ? where.port : 0, "127.0.0.1", resolve));
    sender.close();
  }
}
parentPort!.on("message", () => {});
