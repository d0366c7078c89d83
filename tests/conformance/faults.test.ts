/** What goes wrong in threads and in child processes: who notices, who is told, and that everybody else goes on. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type Address, bind, type ForkingTCPServer, getRuntime, type TCPServer, type ThreadingTCPServer } from "@sockets/server";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { type Client, openSocket } from "./adapters.ts";
import { commandFor } from "./children.ts";
import { until } from "./serving.ts";
import { answer, ask, DATAGRAM, type Errors, FEW, type Mode, serving, STREAM } from "./worker_serving.ts";

const runtime = getRuntime();
const faulty = (name = "default") => new URL(`./handlers/faults.ts#${name}`, import.meta.url);
const messages = (server: Errors) => server.errors.map((error) => (error as Error).message);

/** Begins a request that says which worker it has, and waits. */
async function hold(server: TCPServer): Promise<{ client: Client; worker: string }> {
  const client = await ask(server, "hold");
  return { client, worker: await client.read(1) };
}

async function release({ client }: { client: Client }): Promise<void> {
  await client.write("go");
  assertEquals(await answer(client), "over");
}

async function isFine(server: TCPServer): Promise<void> {
  assertEquals(await answer(await ask(server, "fine")), "fine");
}

/** A folder, and modules in it. */
async function withFolder(use: (path: (name: string) => string, module: (text: string) => URL) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/sockets-faults-`);
  const path = (name: string) => `${folder}/${name}`;
  let modules = 0;
  const module = (text: string) => {
    const file = path(`module${++modules}.mjs`);
    writeFileSync(file, text);
    return pathToFileURL(file);
  };
  try {
    await use(path, module);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Whether a process is there, and no zombie. */
function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

const pids = (server: unknown) => [...(server as ForkingTCPServer).activeChildren];

for (const mode of ["threading", "forking"] as const) {
  loading(mode);
  handlers(mode);
  deaths(mode);
  stubbornness(mode);
  killedServer(mode);
}
killedChildren();

function cases(mode: Mode) {
  return {
    it: (name: string, body: () => Promise<void>) => void test(`${runtime.name} tcp ${mode}: ${name}`, body),
    Server: STREAM[mode].tcp,
    during: (handler: URL, options: Record<string, unknown>, use: (server: TCPServer & Errors) => Promise<void>) =>
      serving(STREAM[mode].tcp, "tcp://127.0.0.1:0", handler, { ...FEW[mode], ...options }, use),
    /** How many workers there may be at once. */
    workers: (count: number) => mode === "threading" ? { maxThreads: count } : { maxChildren: count },
    spare: (count: number) => mode === "threading" ? { spareThreads: count } : { spareChildren: count },
    running: (server: unknown) => mode === "threading" ? (server as ThreadingTCPServer).threads : pids(server).length,
  };
}

/** A handler that needs nothing of the package, for modules outside of it. */
const PLAIN = `export default class {
  constructor(request) { this.request = request; }
  setup() {}
  async handle() {
    await this.request.read();
    await this.request.write("fine");
  }
  finish() {}
}`;

function loading(mode: Mode): void {
  const { it, Server, during, spare, running } = cases(mode);

  it("what is wrong with the handler's module shows in activate, which names the cause and leaves nothing", () =>
    withFolder(async (path, module) => {
      const bad: [URL, RegExp][] = [
        [pathToFileURL(path("missing.mjs")), /^could not load file:.*\/missing\.mjs: .*not? f[io]/i],
        [module("this is no JavaScript"), /^could not load file:.*\/module1\.mjs: [^]*(expected|SyntaxError)/i],
        // With something that would keep it running.
        [module(`setInterval(() => {}, 1000); throw new RangeError("out of range");`), /: RangeError: out of range$/],
        [module(`await Promise.reject(new RangeError("out of range"));`), /: RangeError: out of range$/],
        [module("throw undefined;"), /^could not load file:.*: undefined$/],
        [module("process.exit(9);"), /exit status 9/],
        [new URL("#nothing", faulty()), /must export a class with a handle\(\) method as nothing, got undefined/],
        [module("export default 42;"), /as default, got 42/],
      ];
      await Promise.all(bad.map(async ([url, message]) => {
        const server = new Server("tcp://127.0.0.1:0", url, FEW[mode]);
        assertMatch((await assertRejects(() => server.activate(), Error)).message, message);
        assertEquals(running(server), 0);
        await assertRejects(() => openSocket(server.serverAddress), Error, "ECONNREFUSED");
        await server.serverClose();
      }));
    }));

  it("data that can't be passed on shows in activate", async () => {
    const data = mode === "threading" ? { call: () => {} } : { big: 1n };
    const server = new Server("tcp://127.0.0.1:0", faulty(), { ...FEW[mode], data });
    await assertRejects(() => server.activate(), Error);
    await assertRejects(() => openSocket(server.serverAddress), Error, "ECONNREFUSED");
    await server.serverClose();
  });

  it("without spare workers, each request is told why the module can't be loaded, and the pool heals when it can", () =>
    withFolder(async (path, module) => {
      const url = module(
        `import { existsSync } from "node:fs";
        if (!existsSync(${JSON.stringify(path("there"))})) throw new RangeError("the file is not there");
        ${PLAIN}`,
      );
      await during(url, spare(0), async (server) => {
        for (let i = 1; i <= 3; i++) {
          assertEquals(await answer(await ask(server, "x")), "");
          await until(() => server.errors.length === i);
        }
        for (const message of messages(server)) assertMatch(message, /^could not load .*: RangeError: the file is not there$/);
        writeFileSync(path("there"), "");
        assertEquals(await answer(await ask(server, "x")), "fine");
        assertEquals(server.errors.length, 3);
      });
    }));
}

function handlers(mode: Mode): void {
  const { it, during, workers } = cases(mode);

  it("an error of each step of a handler ends its own request, and says where it came from", () =>
    during(faulty("ThrowsInTurn"), workers(1), async (server) => {
      for (const said of ["", "", "", "all of it", ""]) assertEquals(await answer(await openSocket(server.serverAddress)), said);
      await until(() => server.errors.length === 4);
      assertEquals(messages(server), ["when made", "in setup", "at once", "in finish"]);
      for (const error of server.errors as Error[]) {
        assertEquals(error.name, "RangeError");
        assertMatch(error.stack!, /handlers\/faults\.ts/);
      }
    }));

  it("an error after the answer costs the client nothing, and is told as any other", () =>
    during(faulty(), {}, async (server) => {
      const held = await hold(server);
      assertEquals(await answer(await ask(server, "answer-and-throw")), "answered");
      // The answer comes first; the next request may be another worker's, whose error would come before.
      await until(() => server.errors.length === 1);
      assertEquals(await answer(await ask(server, "throw-nothing")), "");
      await until(() => server.errors.length === 2);
      assertEquals(messages(server), ["after the answer", "a handler threw undefined"]);
      await release(held);
    }));
}

function deaths(mode: Mode): void {
  const { it, during, workers, running } = cases(mode);

  const causes: [command: string, thread: RegExp, child: RegExp][] = [
    ["exit", /exit status 7/, /exit status 7/],
    ["reject", /nobody caught this/, /exit status 1/],
    ["throw-outside", /outside of every handler/, /exit status 1/],
  ];
  for (const [command, thread, child] of causes) {
    it(`a worker that dies of "${command}" takes its own requests with it, another's go on, and the pool heals`, () =>
      during(faulty(), workers(2), async (server) => {
        const other = await hold(server);
        assertEquals(await answer(await ask(server, command)), "");
        await until(() => server.errors.length === 1);
        assertMatch(messages(server)[0]!, mode === "threading" ? thread : child);
        assertMatch(messages(server)[0]!, /that handled the request is gone: /);
        await isFine(server);
        await release(other);
        await isFine(server);
        assertEquals(server.errors.length, 1);
      }));
  }

  for (
    const [command, cause] of [
      [
        "reject-when",
        mode === "threading" ? /had no request is gone: .*nobody caught/ : /had no request is gone: .*exit status 1/,
      ],
      ["exit-when", /had no request is gone: .*exit status 7/],
    ] as const
  ) {
    it(`a worker that dies of "${command}" while it has no request is told of, and the pool heals`, () =>
      withFolder((path) =>
        during(faulty(), workers(1), async (server) => {
          const requests: unknown[] = [];
          server.handleError = (request, _clientAddress, error) => {
            requests.push(request);
            server.errors.push(error);
          };
          assertEquals(await answer(await ask(server, `${command} ${path("now")}`)), "");
          await until(() => server.stats.active === 0);
          writeFileSync(path("now"), "");
          await until(() => server.errors.length === 1);
          assertMatch(messages(server)[0]!, cause);
          assertEquals(requests, [null]);
          await isFine(server);
          assertEquals(server.stats.errors, 1);
        })
      ));
  }

  it("of a hundred requests, those in the worker that dies fail and no other", () =>
    during(faulty(), workers(4), async (server) => {
      const held = await Promise.all(Array.from({ length: mode === "threading" ? 100 : 4 }, () => hold(server)));
      // With four children, these wait until there is one for them.
      const waiting = await Promise.all(Array.from({ length: 100 - held.length }, () => ask(server, "fine")));
      assertEquals(new Set(held.map(({ worker }) => worker)).size, 4);
      const failed = new Set<number | undefined>();
      server.handleError = (_request, clientAddress) => void failed.add((clientAddress as Address & { port: number }).port);
      if (mode === "forking") process.kill(parseInt(held[0]!.worker), "SIGKILL");
      // Whichever thread gets it.
      else assertEquals(await answer(await ask(server, "exit")), "");
      await until(() => failed.size > 0);
      const dead = held.filter(({ client }) => failed.has(client.port));
      assertEquals(new Set(dead.map(({ worker }) => worker)).size, 1);
      assertEquals(dead.length, held.filter(({ worker }) => worker === dead[0]!.worker).length);
      assertEquals(failed.size, mode === "threading" ? dead.length + 1 : 1);
      for (const { client } of dead) assertEquals(await answer(client), "");
      for (const request of held) if (!dead.includes(request)) await release(request);
      assertEquals(new Set(await Promise.all(waiting.map(answer))), new Set(waiting.length > 0 ? ["fine"] : []));
      await isFine(server);
      await until(() => server.stats.active === 0);
      assertEquals(server.stats.errors, failed.size);
      assert(running(server) <= 4);
    }));

  it("memory that runs out ends the worker that needed it, and no other request", async () => {
    if (mode === "threading") return await threadMemory();
    await during(faulty(), workers(2), async (server) => {
      const other = await hold(server);
      assertEquals(await answer(await ask(server, "eat process")), "eating");
      await until(() => server.errors.length === 1);
      // What a runtime ends itself with depends on where it notices.
      assertMatch(messages(server)[0]!, /process \d+ ended with (SIG(ABRT|TRAP|ILL|SEGV|BUS)|exit status (1|13[0-9]))$/);
      await release(other);
      await isFine(server);
    });
  });
}

/** A thread can only be limited together with the program, so that has a process of its own. */
async function threadMemory(): Promise<void> {
  if (runtime.capabilities.threadMemory !== true) return assertMatch(runtime.capabilities.threadMemory, /forking server/);
  const flag = "--max-old-space-size=64";
  const env = { ...process.env, NODE_OPTIONS: flag, DENO_V8_FLAGS: flag };
  await withProgram("threading", { maxThreads: 2 }, env, async (program) => {
    const other = await program.open("hold");
    await other.read(1);
    assertEquals(await answer(await program.open("eat")), "eating");
    await other.write("go");
    assertEquals(await answer(other), "over");
    assertEquals(await answer(await program.open("fine")), "fine");
    await until(() => /out of memory/i.test(program.stderr));
    assertMatch(program.stderr, /the thread that handled the request is gone: .*out of memory/i);
  });
}

function stubbornness(mode: Mode): void {
  const { it, during, workers } = cases(mode);

  for (const command of ["spin", "ignore"]) {
    it(`a handler that goes on when its request is aborted ("${command}") is ended by force, and the server serves again`, () =>
      during(faulty(), workers(2), async (server) => {
        const client = await ask(server, command);
        await client.read(1);
        const served = server.serveForever().catch((error) => error);
        assertMatch(String(await served), /serving already/);
        await server.shutdown({ drain: 0 });
        assertEquals([server.stats.active, server.stats.aborted], [0, 1]);
        assertEquals(await answer(client), "");
        // That it failed is no news to who has aborted it.
        assertEquals(server.errors, []);
        const again = server.serveForever();
        await isFine(server);
        await isFine(server);
        await server.shutdown();
        await again;
      }));
  }

  for (const transport of ["tcp", "udp"] as const) {
    const Server = (transport === "tcp" ? STREAM[mode].tcp : DATAGRAM[mode].udp) as typeof STREAM[Mode]["tcp"];
    const handler = transport === "tcp" ? faulty() : new URL("./handlers/datagram.ts#Endless", import.meta.url);
    it(`a server that is closed again while it is being closed, ${transport}, tells nobody that the workers are gone which it has ended itself`, () =>
      serving(Server, `${transport}://127.0.0.1:0`, handler, FEW[mode], async (server) => {
        const { port } = server.serverAddress as { port: number };
        const clients: Client[] = [];
        // More than there are workers for.
        for (let i = 0; i < 6; i++) {
          if (transport === "tcp") clients.push(await ask(server, "ignore"));
          else {
            const socket = await bind("udp://127.0.0.1:0");
            await socket.send("x", { transport: "udp", hostname: "127.0.0.1", port });
            await socket.close();
          }
        }
        await until(() => server.stats.active >= 2);
        const closed = server.serverClose({ drain: 0 });
        // The handlers have been told, and have a second to notice.
        await until(() => server.stats.aborted > 0);
        await Promise.all([closed, server.serverClose()]);
        for (const client of clients) assertEquals((await answer(client)).replace("ignoring", ""), "");
        await until(() => server.stats.active === 0);
        assertEquals([server.errors, server.stats.errors], [[], 0]);
      }));
  }

  it("a request in a worker that is stuck makes no other wait, nor two who stop the server at once", () =>
    during(faulty(), workers(2), async (server) => {
      const client = await ask(server, "spin");
      await client.read(1);
      for (let i = 0; i < 3; i++) await isFine(server);
      // shutdownTimeout alone would be 15 seconds, and this test has no more.
      await Promise.all([server.shutdown({ drain: 0 }), server.serverClose()]);
      assertEquals(server.stats.active, 0);
      assertEquals(await answer(client), "");
    }));
}

/** What children have that threads don't: anybody can kill them. */
function killedChildren(): void {
  const { it, during } = cases("forking");

  it("spare children that are killed are replaced, and each is told of", () =>
    during(faulty(), { maxChildren: 4, spareChildren: 2 }, async (server) => {
      const before = pids(server);
      assertEquals(before.length, 2);
      for (const pid of before) process.kill(pid, "SIGKILL");
      await until(() => server.errors.length === 2 && pids(server).length === 2);
      for (const message of messages(server)) assertMatch(message, /process \d+ ended with SIGKILL/);
      assert(pids(server).every((pid) => !before.includes(pid)));
      await isFine(server);
    }));

  it("a child that is stopped holds nobody else up; its request ends when the server's patience does, and none is left", async () => {
    let children: number[] = [];
    await during(faulty(), { maxChildren: 3, spareChildren: 2 }, async (server) => {
      const held = await hold(server);
      const pid = parseInt(held.worker);
      process.kill(pid, "SIGSTOP");
      await until(() => /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, "utf8")));
      for (let i = 0; i < 3; i++) await isFine(server);
      await held.client.write("go");
      assertEquals(server.stats.active, 1);
      children = pids(server);
      assert(children.includes(pid));
      await server.shutdown({ drain: 10 });
      assertEquals([server.stats.active, server.stats.aborted], [0, 1]);
      assertEquals(await answer(held.client), "");
      assert(!pids(server).includes(pid));
      // An idle one can be stopped too.
      const [idle] = pids(server);
      process.kill(idle!, "SIGSTOP");
      children.push(...pids(server));
    });
    for (const pid of children) assertEquals(exists(pid), false);
  });

  it("a module whose children die of themselves is given up, with an error for each, until somebody asks", () =>
    withFolder(async (path, module) => {
      const url = module(
        `import { appendFileSync, existsSync } from "node:fs";
        appendFileSync(${JSON.stringify(path("starts"))}, "started\\n");
        setInterval(() => existsSync(${JSON.stringify(path("die"))}) && process.exit(5), 5);
        ${PLAIN}`,
      );
      const starts = () => readFileSync(path("starts"), "utf8").split("\n").length - 1;
      await during(url, { spareChildren: 1 }, async (server) => {
        assertEquals(starts(), 1);
        writeFileSync(path("die"), "");
        await until(() => server.errors.length > 0 && pids(server).length === 0);
        for (const message of messages(server)) assertMatch(message, /exit status 5/);
        const tried = starts();
        assert(tried <= 2 && server.errors.length === tried, `${tried} starts, ${server.errors.length} errors`);
        // Another would have been started while this one runs to its end.
        await new Promise((resolve) => spawn(process.execPath, ["--version"], { stdio: "ignore" }).once("exit", resolve));
        assertEquals([starts(), pids(server).length], [tried, 0]);
        rmSync(path("die"));
        assertEquals(await answer(await ask(server, "x")), "fine");
        await until(() => pids(server).length > 0);
      });
    }));

  it("a line of 8 MiB that a child prints is cut, and says so", () =>
    withProgram("forking", { maxChildren: 1 }, process.env, async (program) => {
      assertEquals(await answer(await program.open("print")), "printed");
      await until(() => program.stderr.endsWith("short\n"));
      const [long, short] = program.stderr.split("\n");
      assertMatch(long!, /^\[\d+\] x+ \[8323072 bytes more were cut\]$/);
      assertMatch(short!, /^\[\d+\] short$/);
    }));

  it("requests that wait for a child are turned away when the server is closed, and served when it doesn't block", async () => {
    for (const blockOnClose of [true, false]) {
      const server = new STREAM.forking.tcp("tcp://127.0.0.1:0", faulty(), {
        ...FEW.forking,
        maxChildren: 1,
        requestsPerChild: 1,
        shutdownTimeout: 0,
        blockOnClose,
      });
      server.handleError = () => {};
      await server.activate();
      const served = server.serveForever();
      const held = await hold(server);
      const children = pids(server);
      await server.serverClose();
      await served;
      if (blockOnClose) assertEquals(await answer(held.client), "");
      else await release(held);
      await until(() => server.stats.active === 0 && pids(server).length === 0);
      for (const pid of children) assertEquals(exists(pid), false);
    }
  });
}

interface Program {
  readonly pid: number;
  readonly children: number[];
  readonly stderr: string;
  readonly exited: Promise<unknown>;
  open(command: string): Promise<Client>;
}

/** Runs a server in a process of its own, and kills it in the end. */
async function withProgram(
  mode: Mode,
  options: Record<string, unknown>,
  env: NodeJS.ProcessEnv,
  use: (program: Program) => Promise<void>,
): Promise<void> {
  const [binary, ...args] = commandFor(new URL("./programs/worker_server.ts", import.meta.url));
  const child = spawn(binary!, [...args, mode, JSON.stringify(options)], { stdio: ["ignore", "pipe", "pipe"], env });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => stderr += text);
  const exited = new Promise((resolve) => child.once("close", resolve));
  try {
    const line = await new Promise<string>((resolve, reject) => {
      createInterface(child.stdout).once("line", resolve);
      void exited.then(() => reject(new Error(stderr)));
    });
    const { listening, children } = JSON.parse(line) as { listening: string; children: number[] };
    const port = Number(/\d+$/.exec(listening)![0]);
    await use({
      pid: child.pid!,
      children,
      exited,
      get stderr() {
        return stderr;
      },
      async open(command) {
        const client = await openSocket({ transport: "tcp", hostname: "127.0.0.1", port });
        await client.write(command);
        return client;
      },
    });
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(child.pid!, "SIGKILL");
    await exited;
  }
}

function killedServer(mode: Mode): void {
  const { it } = cases(mode);

  it("a server that is killed with SIGKILL in the middle of a hundred requests leaves no process, and no client hanging", () => {
    const options = mode === "threading" ? { maxThreads: 4 } : { maxChildren: 4, spareChildren: 4, requestsPerChild: 10 };
    return withProgram(mode, options, process.env, async (program) => {
      const clients = await Promise.all(Array.from({ length: 100 }, () => program.open("hold")));
      let begun = 0;
      for (const client of clients) void client.read(1).then((worker) => worker !== "" && begun++);
      // As many as are handled at once.
      await until(() => begun >= 4);
      const { pid, children, exited } = program;
      assertEquals(children.length, mode === "threading" ? 0 : 4);
      process.kill(pid, "SIGKILL");
      await exited;
      await Promise.all(clients.map(answer));
      await until(() => !children.some(exists));
    });
  });

  if (mode === "threading") return;
  /** The processes of another program than the runtime that a process has started: the guardians of its children. */
  const guardiansOf = (pid: number) =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter((child) => {
      try {
        return child !== "" && /^(sh|dash|bash|busybox)$/m.test(readFileSync(`/proc/${child}/comm`, "utf8"));
      } catch {
        return false;
      }
    }).map(Number);

  for (const killed of ["none", "one", "all"]) {
    const guardians = { none: "", one: " and one of their guardians", all: ", after all of their guardians," }[killed];
    it(`when a server${guardians} is killed with SIGKILL, children that compute for ever are ended too`, () =>
      withProgram(mode, { maxChildren: 2, spareChildren: 2 }, process.env, async (program) => {
        assertEquals(program.children.length, 2);
        for (const client of [await program.open("spin"), await program.open("spin")]) {
          assertEquals(await client.read(8), "spinning");
        }
        if (killed !== "none") {
          const before = guardiansOf(program.pid);
          assertEquals(before.length, 2);
          for (const pid of killed === "one" ? before.slice(0, 1) : before) process.kill(pid, "SIGKILL");
          // Those that take their place know the children.
          if (killed === "all") {
            await until(() => guardiansOf(program.pid).filter((pid) => !before.includes(pid)).length === 2);
          }
        }
        process.kill(program.pid, "SIGKILL");
        await program.exited;
        await until(() => !program.children.some(exists));
      }));
  }
}
