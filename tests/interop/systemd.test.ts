/** The sockets that systemd passes, with systemd's own tool, and what it is told, with a socket that stands in for it. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { bind, getRuntime, listenFds, notify, watchdog } from "@sockets/server";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { openSocket } from "../conformance/adapters.ts";
import { commandFor } from "../conformance/children.ts";
import { missingUnixDatagram, Program, run, runtimeName, testWith, withFolder } from "./programs.ts";

const echo = commandFor(new URL("../../examples/echo.ts", import.meta.url));
const listener = fileURLToPath(new URL("../conformance/programs/listener.pl", import.meta.url));
const notified = fileURLToPath(new URL("./notified.py", import.meta.url));

/** Ends a program, whatever it is about, when `use` is done; one that has started others ends them with its input. */
async function withProgram(
  command: string[],
  use: (program: Program) => Promise<void>,
  end: (program: Program) => void = (program) => program.end(),
): Promise<void> {
  const program = new Program(command[0]!, command.slice(1));
  try {
    await use(program);
  } finally {
    end(program);
    await program.exited;
  }
}

testWith(
  "systemd-socket-activate",
  "echo: systemd-socket-activate starts it, and the first connection is served",
  () =>
    withFolder((folder) => {
      const path = `${folder}/echo.sock`;
      const address = { transport: "unix", path } as const;
      const command = ["systemd-socket-activate", "-l", path, "--fdname=echo", ...env(), ...echo, "--listen", `unix:${path}`];
      return withProgram(command, async (program) => {
        // It listens before it starts anything, and says so.
        while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 5));
        const client = await connectWhenListening(address);
        await client.write("first");
        assertEquals(await client.read(5), "first");
        const second = await openSocket(address);
        await second.write("second");
        assertEquals(await second.read(6), "second");
        await client.end();
        await second.end();
        program.kill("SIGTERM");
        assertEquals(await program.exited, 0, program.stderr);
        // The file is systemd's, not the server's.
        assertEquals(existsSync(path), true);
      }, (program) => program.kill("SIGKILL"));
    }),
);

/** systemd-socket-activate passes no other variables on than those it is told to. */
function env(): string[] {
  return ["PATH", "HOME", "TMPDIR"].filter((name) => process.env[name] !== undefined).map((name) => `--setenv=${name}`);
}

async function connectWhenListening(address: { transport: "unix"; path: string }): ReturnType<typeof openSocket> {
  for (;;) {
    try {
      return await openSocket(address);
    } catch (error) {
      // Bound, but not listening yet.
      if ((error as { code?: string }).code !== "ECONNREFUSED") throw error;
    }
  }
}

testWith(
  "setpriv",
  "echo, TCP: a descriptor is listened on, and ten restarts refuse and reset no connection",
  () =>
    withProgram(["perl", listener, ...echo], async (parent) => {
      const port = Number(await parent.line());
      /** Has the next one started, and resolves with its process id once it serves. */
      const start = async () => {
        parent.send("start\n");
        const pid = Number((await parent.line()).slice("started ".length));
        assertEquals(await parent.line(), `listening tcp://127.0.0.1:${port}`);
        return pid;
      };
      let running = await start();
      let stopped = false;
      let connections = 0;
      // Each makes one connection after the other and needs its answer.
      const load = Array.from({ length: 2 }, async () => {
        for (; !stopped; connections++) {
          const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port });
          await client.write("ping");
          assertEquals(await client.read(4), "ping");
          await client.end();
          assertEquals((await client.readAll()).length, 0);
          assertEquals(await client.gone, null);
        }
      });
      const failed = Promise.all(load);
      failed.catch(() => {});
      for (let restart = 0; restart < 10; restart++) {
        const next = await start();
        const before = connections;
        process.kill(running, "SIGTERM");
        assertEquals(await parent.line(), `ended ${running} 0`);
        running = next;
        // The new one has been at work alone.
        while (connections < before + 20) await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 1))]);
      }
      stopped = true;
      await failed;
      process.kill(running, "SIGTERM");
      assertEquals(await parent.line(), `ended ${running} 0`);
    }),
);

const needsNotify = missingUnixDatagram === false
  ? (name: string, body: () => Promise<void>) => testWith("setpriv", name, body)
  : (name: string, _: unknown) => void test(`${runtimeName} ${name} [skipped: ${missingUnixDatagram}]`, { skip: true }, () => {});

testWith("systemd-analyze", "the units in examples/systemd/ are what systemd understands", () =>
  withFolder(async (folder) => {
    const units = fileURLToPath(new URL("../../examples/systemd/", import.meta.url));
    for (const unit of ["echo.socket", "echo.service"]) {
      const text = readFileSync(`${units}${unit}`, "utf8");
      // The program must exist.
      writeFileSync(`${folder}/${unit}`, text.replace("/usr/bin/node", process.execPath));
    }
    const { status, stdout, stderr } = await run("systemd-analyze", [
      "verify",
      `${folder}/echo.socket`,
      `${folder}/echo.service`,
    ]);
    assertEquals([status, stdout, stderr], [0, "", ""]);
  }));

for (const kind of ["path", "abstract"]) {
  needsNotify(
    `echo: systemd hears that it is ready, alive and stopping (${kind})`,
    () =>
      withProgram(["python3", notified, kind, ...echo], async (program) => {
        const lines = [await program.line(), await program.line()].sort();
        assertEquals(lines[0], "READY=1");
        // In time, again and again.
        for (let times = 0; times < 3; times++) assertEquals(await program.line(), "WATCHDOG=1");
        program.send("stop\n");
        let line = await program.line();
        while (line === "WATCHDOG=1") line = await program.line();
        assertEquals(line, "STOPPING=1");
        assertEquals(await program.exited, 0, program.stderr);
      }),
  );
}

needsNotify("notify({ reloading }) says when, by the clock that systemd compares with (Type=notify-reload)", async () => {
  const socket = await bind("unixgram:");
  const runtime = {
    ...getRuntime(),
    environment: (name: string) =>
      name === "NOTIFY_SOCKET" ? (socket.address as { path: string }).path.replace(/^\0/, "@") : undefined,
  };
  const clock = async () =>
    BigInt((await run("python3", ["-c", "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)"])).stdout);
  try {
    const before = await clock();
    assertEquals(await notify({ reloading: true, status: "reading" }, { runtime }), true);
    const after = await clock();
    const told = new TextDecoder().decode((await socket.receive())!.data);
    const [, time] = /^RELOADING=1\nSTATUS=reading\nMONOTONIC_USEC=(\d+)$/.exec(told) ?? [];
    assert(time !== undefined, told);
    assert(before <= BigInt(time) && BigInt(time) <= after, `${before} ${time} ${after}`);
    await notify({ ready: true }, { runtime });
    assertEquals(new TextDecoder().decode((await socket.receive())!.data), "READY=1");
  } finally {
    await socket.close();
  }
});

testWith("perl", "programs that a service runs inherit neither its sockets nor systemd's variables", () => {
  const program = commandFor(new URL("../conformance/programs/inherits.ts", import.meta.url));
  return withProgram(["perl", listener, ...program], async (parent) => {
    await parent.line();
    parent.send("start\n");
    assertMatch(await parent.line(), /^started \d+$/);
    assertEquals(await parent.line(), "descriptor 3; a program has: variables:");
  });
});

test(`${runtimeName}: started by hand there are no descriptors, nobody to notify and no watchdog`, async () => {
  assertEquals(listenFds(), []);
  assertEquals(await notify({ ready: true }), false);
  watchdog()[Symbol.dispose]();
});

test(`${runtimeName}: descriptors that are meant for another process are not taken, and the variables are removed`, () => {
  const variables: Record<string, string> = { LISTEN_PID: "1", LISTEN_FDS: "2", LISTEN_FDNAMES: "http:" };
  const runtime = {
    ...getRuntime(),
    environment: (name: string) => variables[name],
    unsetEnvironment: (name: string) => void delete variables[name],
  };
  assertEquals(listenFds({ runtime }), []);
  assertEquals(Object.keys(variables), []);
  Object.assign(variables, { LISTEN_PID: String(runtime.pid()), LISTEN_FDS: "3", LISTEN_FDNAMES: "http:control" });
  assertEquals(listenFds({ runtime }), [
    { fd: 3, name: "http" },
    { fd: 4, name: "control" },
    { fd: 5, name: "unknown" },
  ]);
  assertEquals(Object.keys(variables), []);
});
