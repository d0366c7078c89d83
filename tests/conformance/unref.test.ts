/** What keeps a program running, and what `unref()` takes off that, whatever its timeouts. */
import { assertEquals } from "@std/assert";
import { formatAddress, getRuntime, parseAddress, serve } from "@sockets/server";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { freshPath, openSocket } from "./adapters.ts";
import { certificate } from "./certificates.ts";
import { commandFor } from "./children.ts";

const { name, capabilities } = getRuntime();

/** Runs the program; its exit status, and what it has printed. A program that doesn't end by itself fails the test with its time limit. */
async function run(
  what: string,
  way: "unref" | "ref",
  peer: string,
  then: (lines: AsyncIterator<string>) => Promise<void>,
): Promise<number | string> {
  const [binary, ...args] = commandFor(new URL("programs/unreferenced.ts", import.meta.url));
  const child = spawn(binary!, [...args, what, way, peer], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise<number | string>((resolve) => {
    child.once("exit", (status, signal) => resolve(status ?? signal ?? "?"));
  });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  try {
    await then(lines);
    return await exited;
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(child.pid!, "SIGKILL");
  }
}

/** Reads lines to the one that says that the program has nothing more to do. */
async function done(lines: AsyncIterator<string>): Promise<string> {
  let first = "";
  for (;;) {
    const { value, done } = await lines.next();
    if (done || value === "done") return first;
    first ||= value;
  }
}

const CLIENTS = ["client", "client that reads", "client that has read", "tls client", "unix client"];
const SOCKETS = [
  "socket",
  "socket that receives",
  "socket with buffer sizes",
  ...(capabilities.unixDatagram === true ? ["unix socket"] : []),
];
const SERVERS = [
  "server",
  "unix server",
  "tls server",
  "udp server",
  "threads",
  "children",
  "handleRequest()",
  ...(capabilities.unixDatagram === true ? ["unixgram server"] : []),
];

for (const what of CLIENTS) {
  test(`${name}: unref(), ${what}: the program ends`, { timeout: 60_000 }, async () => {
    const address = what === "unix client"
      ? `unix:${freshPath()}`
      : what === "tls client"
      ? "tls://127.0.0.1:0"
      : "tcp://127.0.0.1:0";
    const options = what === "tls client" ? { tls: certificate("localhost") } : {};
    const server = await serve(address, async (conn) => {
      await conn.write("x");
      await conn.closed;
    }, { shutdownTimeout: 0, ...options });
    const where = formatAddress(server.serverAddress).replace("tls://", "tcp://");
    assertEquals(await run(what, "unref", where, async (lines) => void await done(lines)), 0);
    await server.serverClose();
  });
}

for (const what of [...SOCKETS, ...SERVERS]) {
  test(`${name}: unref(), ${what}: the program ends`, { timeout: 60_000 }, async () => {
    assertEquals(await run(what, "unref", "", async (lines) => void await done(lines)), 0);
  });
}

for (const what of ["server", "unix server"]) {
  test(
    `${name}: ref() after unref(), ${what}: the program goes on until it is asked something`,
    { timeout: 60_000 },
    async () => {
      const status = await run(what, "ref", "", async (lines) => {
        const address = await done(lines);
        const client = await openSocket(parseAddress(address));
        assertEquals(await client.read(1), "!");
      });
      assertEquals(status, 7);
    },
  );
}
