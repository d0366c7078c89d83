/** What clients do to the echo servers, whichever runtime serves. */
import { assert, assertEquals } from "@std/assert";
import type { Address } from "@sockets/server";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import type { Client } from "../conformance/adapters.ts";

/** They come back byte for byte, and the end behind them. */
export async function eightMebibytes(client: Client): Promise<void> {
  const sent = new Uint8Array(8 << 20).map((_, i) => (i * 7 + (i >> 10)) & 255);
  const received = client.readAll();
  await client.write(sent);
  await client.end();
  assertEquals(Buffer.compare(await received, sent), 0);
  assertEquals(await client.gone, null);
}

/** A client that sends without reading is stopped, and costs the server little memory. */
export async function stopped(address: Address, pid: number): Promise<void> {
  const socket = connect("path" in address ? { path: address.path } : { host: address.hostname, port: address.port });
  socket.on("error", () => {});
  socket.pause();
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  const before = residentMemory(pid);
  const piece = new Uint8Array(1 << 16);
  let taken = 0;
  // Stopped means: a write that the system has not taken after half a second will not be taken.
  for (let done = true; done;) {
    done = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), 500);
      socket.write(piece, (error) => {
        clearTimeout(timer);
        resolve(!error);
      });
    });
    if (done) taken += piece.length;
    assert(taken < 64 << 20, "the client was never stopped");
  }
  const after = residentMemory(pid);
  if (before !== null && after !== null) assert(after - before < 64 << 10, `memory grew by ${after - before} KiB`);
  socket.destroy();
}

/** In KiB, or `null` where the system doesn't tell. */
function residentMemory(pid: number): number | null {
  const status = `/proc/${pid}/status`;
  return existsSync(status) ? Number(/VmRSS:\s*(\d+)/.exec(readFileSync(status, "utf8"))![1]) : null;
}
