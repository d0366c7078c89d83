/** `examples/haproxy.cfg` with a real HAProxy: what the servers behind it see, and how they are restarted one after another. */
import { assert, assertEquals } from "@std/assert";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { connect as netConnect } from "node:net";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { AsyncTCPServer, type TCPServer } from "@sockets/server";
import { openSocket } from "../conformance/adapters.ts";
import Facts from "../conformance/handlers/proxy.ts";
import { type Quiet, quiet, until } from "../conformance/serving.ts";
import { type Running, servers, start } from "../cross/servers.ts";
import { Program, runtimeName, testWith, withFolder } from "./programs.ts";

/** How often each server is restarted; more is for whoever has the time. */
const ROUNDS = Number(process.env.HAPROXY_ROUNDS ?? 10);
const EXAMPLE = readFileSync(fileURLToPath(new URL("../../examples/haproxy.cfg", import.meta.url)), "utf8");

/** Gives HAProxy the socket that it listens on, as it can't ask for a free port itself: `$^F` keeps it open in what perl turns into. */
const LISTENING = `
use IO::Socket::INET;
$^F = 255;
$| = 1;
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:0", Listen => 511) or die $!;
print $listener->sockport, "\\n";
$ENV{FRONT} = "fd@" . fileno($listener);
exec @ARGV;
`;

// Its timer may be all that keeps a test waiting.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

/** An HAProxy that runs. */
class HAProxy {
  readonly port: number;
  #program: Program;
  #socket: string;

  private constructor(program: Program, port: number, socket: string) {
    this.#program = program;
    this.port = port;
    this.#socket = socket;
  }

  /** Runs it with the example's configuration, in which some things are replaced, while `use` runs. */
  static run(replace: [string | RegExp, string][], use: (haproxy: HAProxy) => Promise<void>): Promise<void> {
    return withFolder(async (folder) => {
      const socket = `${folder}/haproxy.sock`;
      const all: typeof replace = [[/^( {4}stats socket )\S+/m, `$1${socket}`], [/bind \S+/, 'bind "${FRONT}"'], [
        "inter 1s",
        "inter 50ms",
      ]];
      let config = EXAMPLE;
      for (const [from, to] of [...all, ...replace]) {
        assert(config.search(from) !== -1, `${from} is not in the configuration`);
        config = config.replace(from, to);
      }
      writeFileSync(`${folder}/haproxy.cfg`, config);
      const program = new Program("perl", ["-e", LISTENING, "haproxy", "-db", "-f", `${folder}/haproxy.cfg`]);
      try {
        const haproxy = new HAProxy(program, Number(await program.line()), socket);
        await use(haproxy);
      } finally {
        program.kill("SIGTERM");
        await program.exited;
      }
    });
  }

  /** Has it do something, by its runtime socket; what it answers. */
  async command(command: string): Promise<string> {
    for (;;) {
      const answer = await this.#tell(command);
      if (answer !== null) return answer;
      assertEquals(this.#program.stderr.match(/ALERT.*/)?.[0], undefined);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** What it answers, or `null` while it doesn't listen yet. */
  #tell(command: string): Promise<string | null> {
    return new Promise((resolve) => {
      const socket = netConnect({ path: this.#socket });
      let answer = "";
      socket.on("error", () => resolve(null));
      socket.on("connect", () => socket.write(`${command}\n`));
      socket.on("data", (chunk) => answer += chunk);
      socket.on("end", () => resolve(answer));
    });
  }

  /** A field of a server's statistics. */
  async field(server: string, field: string): Promise<string> {
    const [head, ...lines] = (await this.command("show stat")).replace(/^# /, "").trim().split("\n");
    const line = lines.map((line) => line.split(",")).find(([backend, name]) => backend === "echo" && name === server);
    return line?.[head!.split(",").indexOf(field)] ?? "";
  }

  /** Waits until a field has a value. */
  async until(server: string, field: string, value: string): Promise<void> {
    while (await this.field(server, field) !== value) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const local = (port: number) => ({ transport: "tcp", hostname: "127.0.0.1", port }) as const;

const VERSIONS = [
  [1, "send-proxy"],
  [2, "send-proxy-v2 proxy-v2-options crc32c"],
] as const;
for (const [version, option] of VERSIONS) {
  testWith(
    "haproxy",
    `HAProxy with ${option}: the client is seen, and health checks are answered and are no errors`,
    async () => {
      const server = new (quiet(AsyncTCPServer))("tcp://127.0.0.1:0", Facts, { proxyProtocol: true });
      await server.activate();
      const served = server.serveForever();
      const { port } = server.serverAddress as { port: number };
      try {
        await HAProxy.run([
          ["send-proxy-v2 proxy-v2-options crc32c", option],
          ["server one 127.0.0.1:9001", `server one 127.0.0.1:${port}`],
          [/^ +server (two|three) .*\n/gm, ""],
        ], async (haproxy) => {
          await haproxy.until("one", "status", "UP");
          await seen(haproxy, version, server);
          const checked = server.stats.accepted;
          await until(() => server.stats.accepted > checked + 10);
          assertEquals(await haproxy.field("one", "status"), "UP");
          assertEquals([(server as unknown as Quiet).errors, server.stats.refused], [[], 0]);
        });
      } finally {
        await server.shutdown({ drain: 0 });
        await server.serverClose();
        await served;
      }
    },
  );
}

/** A client's address is its own, on both sides of HAProxy. */
async function seen(haproxy: HAProxy, version: number, server: TCPServer): Promise<void> {
  const client = await openSocket(local(haproxy.port));
  await client.write("through HAProxy");
  await client.end();
  const [facts, ...echoed] = new TextDecoder().decode(await client.readAll()).split("\n");
  const { clientAddress, localAddress, proxy } = JSON.parse(facts!);
  assertEquals(clientAddress, local(client.port!));
  assertEquals(localAddress, server.serverAddress);
  assertEquals([proxy.version, proxy.command, proxy.destination], [version, "PROXY", local(haproxy.port)]);
  assertEquals(echoed, ["through HAProxy"]);
}

/** Sends bytes through a connection of its own until told to stop; each must come back, and the end behind them. */
class Load {
  readonly endsInOrder = true;
  requests = 0;
  bytes = 0;
  failures: string[] = [];
  #port: number;
  #stopped = false;
  #done: Promise<unknown>;

  constructor(port: number, clients: number) {
    this.#port = port;
    this.#done = Promise.all(Array.from({ length: clients }, (_, i) => this.#client(i)));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #client(number: number): Promise<void> {
    for (let i = 0; !this.#stopped; i++) {
      const sent = randomBytes((number + i) % 20 === 0 ? 1 << 20 : 1 + (number * 7919 + i * 104_729) % 20_000);
      try {
        const client = await openSocket(local(this.#port));
        const received = client.readAll();
        await client.write(sent);
        await client.end();
        const echoed = await received;
        if (!sent.equals(echoed)) this.failures.push(`${echoed.length} of ${sent.length} bytes came back`);
        const code = await client.gone;
        if (code !== null) this.failures.push(code);
        this.requests++;
        this.bytes += sent.length;
      } catch (error) {
        this.failures.push(String(error));
      }
    }
  }
}

/** redis-benchmark, each of whose requests is a connection of its own, until told to stop. It gives up at the first that fails. */
class RedisBenchmark {
  /** It leaves in the midst of its requests, and servers may say that those were reset. */
  readonly endsInOrder = false;
  #program: Program;

  constructor(port: number) {
    this.#program = new Program("redis-benchmark", ["-p", String(port), "-t", "ping_mbulk", "-k", "0", "-c", "4", "-l", "-q"]);
  }

  async stop(): Promise<void> {
    this.#program.kill("SIGTERM");
    const { status, stdout, stderr } = await this.#program.finish();
    assertEquals(/error|could not|closed/i.exec(stdout + stderr)?.[0], undefined, stdout.slice(-500) + stderr);
    assertEquals(status, "SIGTERM");
  }
}

const NAMES = ["one", "two", "three"];

/** Restarts servers on the three runtimes one after another, while HAProxy in front of them gets a load; how many restarts there were. */
async function restartAll(
  example: string,
  args: string[],
  replace: [string | RegExp, string][],
  begin: (port: number) => { readonly endsInOrder: boolean; stop(): Promise<void> },
): Promise<number> {
  const commands = servers.filter(({ name }) => name !== "node22").map(({ command }) => command);
  // One that is not installed leaves its place to another.
  const installed = commands.filter((command) => command !== null);
  const startServer = (i: number) => start(commands[i] ?? installed[0]!, example, ["--listen", "tcp://127.0.0.1:0", ...args]);
  const stopServer = async (server: Running) => {
    server.kill("SIGTERM");
    assertEquals([await server.exited, server.stderr], [0, ""]);
  };
  const running: Running[] = [];
  try {
    for (const i of NAMES.keys()) running.push(await startServer(i));
    const ports = running.map((
      { port },
      i,
    ): [string, string] => [`${NAMES[i]} 127.0.0.1:900${i + 1}`, `${NAMES[i]} 127.0.0.1:${port}`]);
    await HAProxy.run([...ports, ...replace], async (haproxy) => {
      for (const name of NAMES) await haproxy.until(name, "status", "UP");
      const load = begin(haproxy.port);
      for (let round = 0; round < ROUNDS; round++) {
        for (const [i, name] of NAMES.entries()) {
          await haproxy.command(`set server echo/${name} state drain`);
          await haproxy.until(name, "scur", "0");
          await stopServer(running[i]!);
          running[i] = await startServer(i);
          await haproxy.command(`set server echo/${name} addr 127.0.0.1 port ${running[i]!.port}`);
          await haproxy.command(`set server echo/${name} state ready`);
          await haproxy.until(name, "status", "UP");
          const served = await haproxy.field(name, "stot");
          while (await haproxy.field(name, "stot") === served) await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }
      await load.stop();
      for (const server of running) {
        if (load.endsInOrder) await stopServer(server);
        else server.kill("SIGTERM");
        assertEquals(await server.exited, 0);
      }
    });
  } finally {
    for (const server of running) server.kill("SIGKILL");
  }
  return ROUNDS * NAMES.length;
}

// It is about all three at once: that one of them runs it is enough.
const { own, command: newestNode } = servers.find(({ name }) => name === "node")!;
if (own || newestNode === null) {
  const options = { timeout: 60_000 + ROUNDS * 60_000 };

  testWith(
    "haproxy",
    `HAProxy over three runtimes: ${ROUNDS} rolling restarts under load lose no request and no byte`,
    async () => {
      let load: Load;
      const restarts = await restartAll("echo.ts", ["--proxy-protocol"], [], (port) => load = new Load(port, 4));
      assertEquals(load!.failures, []);
      assert(load!.requests > 3 * restarts, `${load!.requests} requests`);
      console.log(`${runtimeName}: ${load!.requests} requests, ${load!.bytes} bytes through ${restarts} restarts`);
    },
    options,
  );

  testWith(
    "redis-benchmark",
    `HAProxy over three runtimes: redis-benchmark notices nothing of ${ROUNDS} rolling restarts`,
    async () => {
      const restarts = await restartAll(
        "resp.ts",
        [],
        [[" send-proxy-v2 proxy-v2-options crc32c", ""]],
        (port) => new RedisBenchmark(port),
      );
      assertEquals(restarts, ROUNDS * NAMES.length);
    },
    options,
  );
}
