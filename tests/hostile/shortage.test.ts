/** A server with few descriptors, which idle clients use up: it lives, and serves again when they have left. */
import { assert, assertEquals } from "@std/assert";
import { parseAddress } from "@sockets/server";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { openSocket } from "../conformance/adapters.ts";
import { commandFor } from "../conformance/children.ts";
import { until } from "../conformance/serving.ts";
import { type Example, Program, withFolder } from "../interop/programs.ts";
import { descriptors, notLinux, title } from "./victim.ts";

const skip = notLinux !== false;

/** Starts a program with so few descriptors. */
function launch(module: string, args: string[], limit: number): Program {
  const command = commandFor(new URL(module, import.meta.url));
  return new Program("sh", ["-c", `ulimit -n ${limit}; exec "$@"`, "sh", ...command, ...args]);
}

/** A client that says nothing, and whether the server has closed it. */
function idleClient(address: string): { socket: Socket; closed: boolean } {
  const parsed = parseAddress(address);
  const socket = connect("path" in parsed ? { path: parsed.path } : { host: parsed.hostname, port: parsed.port });
  const client = { socket, closed: false };
  socket.on("error", () => {}).on("close", () => client.closed = true).resume();
  return client;
}

/** Waits for what a server is to come to, unless it ends before. */
async function untilIn(program: Program, condition: () => boolean): Promise<void> {
  let ended: unknown;
  void program.exited.then((status) => ended = status);
  await until(() => ended !== undefined || condition());
  assertEquals(ended, undefined, program.stderr.slice(0, 2000));
}

/** Whether a client gets its echo; while there are too few descriptors it may be turned away. */
async function isServed(address: string): Promise<boolean> {
  try {
    const client = await openSocket(parseAddress(address));
    await client.write("hello");
    const answer = await client.read(5);
    await client.end().catch(() => {});
    return answer === "hello";
  } catch {
    return false;
  }
}

for (const concurrency of ["async", "threading", "forking"]) {
  for (const transport of ["tcp", "unix"]) {
    // Each client of a forking server that has left costs a process all the same, which ends at once.
    const limit = transport === "tcp" && concurrency !== "forking" ? 128 : 64;
    test(
      title(`examples/echo.ts, ${concurrency}, ${transport}: idle clients use up all of ${limit} descriptors`),
      { skip },
      () =>
        withFolder(async (folder) => {
          const listen = transport === "tcp" ? "tcp://127.0.0.1:0" : `unix:${folder}/echo.sock`;
          const program = launch("../../examples/echo.ts", ["--listen", listen, "--concurrency", concurrency], limit);
          const clients: ReturnType<typeof idleClient>[] = [];
          try {
            const address = (await program.line()).replace("listening ", "");
            const before = descriptors(program as Example);
            while (clients.length < limit + 40) clients.push(idleClient(address));
            // A server that can't start a process closes what the process would have been for, and keeps the descriptors for it free.
            const turnedAway = () => clients.some(({ closed }) => closed);
            await untilIn(program, concurrency === "forking" ? turnedAway : () => descriptors(program as Example) >= limit);
            for (const { socket } of clients) socket.destroy();
            let served = false;
            void (async () => {
              while (!served && !await isServed(address));
              served = true;
            })();
            await untilIn(program, () => served);
            // As many as it needs, and what it has started meanwhile.
            await untilIn(program, () => descriptors(program as Example) <= before + 16);
            program.kill("SIGTERM");
            assertEquals(await program.exited, 0, program.stderr.slice(0, 2000));
            const lines = program.stderr.split("\n");
            assert(lines.length <= 5, `${lines.length} lines on stderr: ${lines.slice(0, 20).join("\n")}`);
          } finally {
            for (const { socket } of clients) socket.destroy();
            program.kill("SIGKILL");
            await program.exited;
          }
        }),
    );
  }
}

for (const worker of ["fork", "spawnThread"]) {
  test(
    title(`this.${worker}() without descriptors fails that request alone, and works when there are some again`),
    { skip },
    async () => {
      const limit = 72;
      const program = launch("../conformance/programs/handing_over.ts", [], limit);
      const idle: ReturnType<typeof idleClient>[] = [];
      try {
        const address = (await program.line()).replace("listening ", "");
        const open = async (command: string) => {
          const client = await openSocket(parseAddress(address));
          await client.write(`${command}\n`);
          return client;
        };
        const other = await open("hello");
        assertEquals(await other.read(6), "hello\n");
        const asking = await open("hello");
        assertEquals(await asking.read(6), "hello\n");
        // Fewer than a process or a thread takes are left.
        while (descriptors(program as Example) < limit - 2) {
          const held = descriptors(program as Example);
          idle.push(idleClient(address));
          await untilIn(program, () => descriptors(program as Example) > held);
        }
        await asking.write(`${worker}\n`);
        assertEquals(new TextDecoder().decode(await asking.readAll()), "");
        const line = await program.line();
        // Its module may be the first thing that can't be opened.
        assert(/^error: .*(EMFILE|too many open files)/i.test(line), line);
        await other.write("still\n");
        assertEquals(await other.read(6), "still\n");
        for (const { socket } of idle) socket.destroy();
        await untilIn(program, () => descriptors(program as Example) < limit / 2);
        const again = await open(worker);
        assertEquals(new TextDecoder().decode(await again.readAll()), "done elsewhere\n");
        await other.end();
        program.kill("SIGTERM");
        assertEquals(await program.exited, 0, program.stderr);
        assertEquals(program.stderr, "");
      } finally {
        for (const { socket } of idle) socket.destroy();
        program.kill("SIGKILL");
        await program.exited;
      }
    },
  );
}
