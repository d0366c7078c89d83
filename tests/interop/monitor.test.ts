/** `monitor()`, with `curl`, a browser and its own terminal view at the other end. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { AsyncTCPServer, connect, formatAddress, Replicas, serve } from "@sockets/server";
import { fetchSnapshot, monitor, type MonitorSnapshot, renderTop } from "@sockets/server/monitor";
import { statSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { GetHandler } from "../../src/observe/get_handler.ts";
import { openSocket } from "../conformance/adapters.ts";
import { commandFor } from "../conformance/children.ts";
import { until } from "../conformance/serving.ts";
import { run, runtimeName, testWith, withFolder } from "./programs.ts";

interface Watched {
  /** Where the monitor is, as an address and for a browser. */
  address: string;
  url: string;
  /** What curl gets. */
  ask(path: string, ...args: string[]): Promise<string>;
}

/** A server with two requests behind it and one that goes on, and its monitor. */
async function watched(listen: string | undefined, use: (watched: Watched) => Promise<void>): Promise<void> {
  const server = await serve("tcp://127.0.0.1:0", async (conn) => {
    for await (const chunk of conn) await conn.write(chunk);
  });
  const datagrams = await serve("udp://127.0.0.1:0", (datagram) => datagram.reply(datagram.data));
  const watching = await monitor([server, datagrams], { listen });
  const echo = async () => {
    const client = await connect(server.serverAddress);
    await client.write("hello");
    await client.read();
    return client;
  };
  try {
    for (let i = 0; i < 2; i++) {
      const client = await echo();
      await client.closeWrite();
      await client.read();
      await client.close();
    }
    const client = await echo();
    await until(() => server.stats.active === 1);
    const address = formatAddress(watching.serverAddress);
    const where = address.startsWith("unix:") ? ["--unix-socket", address.slice("unix:".length)] : [];
    const url = where.length > 0 ? "http://localhost" : address.replace("tcp:", "http:");
    await use({
      address,
      url,
      ask: async (path, ...args) => (await run("curl", ["--silent", "--show-error", ...where, ...args, url + path])).stdout,
    });
    await client.close();
  } finally {
    await watching.serverClose();
    await server.serverClose();
    await datagrams.serverClose();
  }
}

const STATUS = ["--output", "/dev/null", "--write-out", "%{http_code}"];

testWith(
  "curl",
  "monitor: /stats.json and /metrics say what the servers counted, over a free port of this machine",
  () =>
    watched(undefined, async ({ address, ask }) => {
      assertMatch(address, /^tcp:\/\/127\.0\.0\.1:\d+$/);
      const { time, servers } = JSON.parse(await ask("/stats.json")) as MonitorSnapshot;
      assert(time > 0);
      const [streams, datagrams] = servers;
      assertEquals([streams!.name, datagrams!.name, servers.length], ["AsyncTCPServer", "AsyncUDPServer", 2]);
      const { accepted, active, bytesRead, ended } = streams!.stats;
      assertEquals([accepted, active, bytesRead, ended["peer closed"]], [3, 1, 15, 2]);
      assertEquals(streams!.longest.map(({ bytesRead, bytesWritten }) => [bytesRead, bytesWritten]), [[5, 5]]);
      assertMatch(await ask("/metrics"), /^sockets_server_requests_accepted_total\{server="tcp:\/\/127\.0\.0\.1:\d+"\} 3$/m);
      assertMatch(
        await ask("/metrics", "--head", "--request", "GET"),
        /\r\ncontent-type: text\/plain; version=0\.0\.4; charset=utf-8\r\n/,
      );
    }),
);

testWith(
  "curl",
  "monitor: a Unix socket is for its own user, and shows the same",
  () =>
    withFolder((folder) =>
      watched(`unix:${folder}/monitor.sock`, async ({ ask }) => {
        assertEquals(statSync(`${folder}/monitor.sock`).mode & 0o777, 0o600);
        assertEquals(JSON.parse(await ask("/stats.json")).servers[0].stats.accepted, 3);
      })
    ),
);

testWith(
  "curl",
  "monitor: no name but its own is answered, nothing but GET, and nothing may be loaded from elsewhere",
  () =>
    watched(undefined, async ({ url, ask }) => {
      const status = (path: string, ...args: string[]) => ask(path, ...STATUS, ...args);
      const { port } = new URL(url);
      for (const host of ["localhost", `LOCALHOST:${port}`, `127.0.0.1:${port}`, "[::1]:1"]) {
        assertEquals(await status("/stats.json", "--header", `Host: ${host}`), "200", host);
      }
      for (
        const host of [
          "attacker.example",
          `attacker.example:${port}`,
          "127.0.0.1.example",
          "localhost.example",
          "1.2.3",
          "@localhost",
        ]
      ) {
        assertEquals(await status("/stats.json", "--header", `Host: ${host}`), "421", host);
      }
      assertEquals(await status("/", "--header", "Host:"), "400");
      for (const method of ["POST", "PUT", "DELETE", "OPTIONS"]) assertEquals(await status("/", "--request", method), "405");
      assertEquals(await status("/", "--data", "x".repeat(100_000)), "405");
      assertEquals(await status("/nothing"), "404");
      assertEquals(await status("/", "--header", `X: ${"x".repeat(9000)}`), "431");
      assertEquals(await status("/", ...Array.from({ length: 101 }, (_, i) => ["--header", `X-${i}: x`]).flat()), "431");
      const head = await ask("/", "--include");
      assertMatch(head, /\r\ncontent-security-policy: default-src 'none';/);
      assertMatch(head, /\r\nx-content-type-options: nosniff\r\n/);
      assert(!/\r\naccess-control-/i.test(head));
      assert(!/(src|href)="(https?:)?\/\//.test(head));
    }),
);

test(`${runtimeName} monitor: listen must be an address of connections`, async () => {
  await assertRejects(() => monitor([], { listen: "udp://127.0.0.1:0" }), TypeError);
});

test(`${runtimeName} monitor: however many look, servers are asked once for all of them; rates are of the time between`, async () => {
  const server = await serve("tcp://127.0.0.1:0", () => {});
  let asked = 0;
  const watching = await monitor({
    serverAddress: server.serverAddress,
    get stats() {
      asked++;
      return server.stats;
    },
  });
  try {
    assertEquals(asked, 0);
    const looks = await Promise.all(Array.from({ length: 50 }, () => fetchSnapshot(watching.serverAddress)));
    const first = looks.reduce((first, look) => look.time < first.time ? look : first);
    assertEquals(first.servers[0]!.recent, null);
    let next = first;
    while (next.time === first.time) looks.push(next = await fetchSnapshot(watching.serverAddress));
    assertEquals(new Set(looks.map(({ time }) => time)).size, asked);
    const { seconds, accepted, bytesRead, p50 } = next.servers[0]!.recent!;
    assert(seconds > 0);
    assertEquals([accepted, bytesRead, p50], [0, 0, null]);
  } finally {
    await watching.serverClose();
    await server.serverClose();
  }
});

test(`${runtimeName} monitor: replicas are shown with the sum of what they counted`, async () => {
  const module = new URL("../conformance/handlers/replica.ts", import.meta.url);
  const replicas = new Replicas("tcp://127.0.0.1:0", module, { count: 2 });
  await replicas.activate();
  const serving = replicas.serveForever();
  const watching = await monitor(replicas);
  try {
    for (let i = 0; i < 3; i++) {
      const client = await connect(replicas.serverAddress);
      await client.write("bye");
      await client.closeWrite();
      while (await client.read() !== null);
      await client.close();
    }
    const counted = async () => (await fetchSnapshot(watching.serverAddress)).servers[0]!;
    let shown = await counted();
    while (shown.stats.accepted < 3) shown = await counted();
    assertEquals(shown.name, "Replicas");
    assertEquals(shown.replicas.map(({ index, kind, state }) => [index, kind, state]), [[0, "process", "running"], [
      1,
      "process",
      "running",
    ]]);
    assertEquals(shown.replicas.map(({ id }) => id), replicas.members.map(({ id }) => id));
  } finally {
    await watching.serverClose();
    await replicas.shutdown({ drain: 0 });
    await serving;
    await replicas.serverClose();
  }
});

test(`${runtimeName} monitor: thousands of servers are more than a line's worth of JSON`, async () => {
  const server = await serve("tcp://127.0.0.1:0", () => {});
  const watching = await monitor(Array.from({ length: 5000 }, () => server));
  try {
    const snapshot = await fetchSnapshot(watching.serverAddress);
    assertEquals(snapshot.servers.length, 5000);
    assertEquals(new Set(snapshot.servers.map(({ address }) => address)).size, 1);
    assertEquals(renderTop(snapshot).match(/AsyncTCPServer/g)!.length, 5000);
  } finally {
    await watching.serverClose();
    await server.serverClose();
  }
});

for (
  const [kind, sent] of [["say nothing", ""], [
    "have their answer and stay",
    "GET / HTTP/1.0\r\nhost: localhost\r\n\r\n",
  ]] as const
) {
  test(`${runtimeName} monitor: among 120 clients that ${kind}, one that asks is answered, and need not wait for them`, async () => {
    const server = await serve("tcp://127.0.0.1:0", () => {});
    const watching = await monitor(server);
    const idle: Awaited<ReturnType<typeof openSocket>>[] = [];
    let gone = 0;
    try {
      for (let i = 0; i < 120; i++) {
        const client = await openSocket(watching.serverAddress);
        idle.push(client);
        void client.gone.then(() => gone++);
        if (sent !== "") await client.write(sent);
      }
      for (let i = 0; i < 3; i++) assertEquals((await fetchSnapshot(watching.serverAddress)).servers.length, 1);
      // It was never full, and no client was given up for its silence: those that are gone had to leave for others.
      assertEquals(watching.stats.paused, 0);
      if (sent === "") assert(gone <= 30, `${gone} of 120 are gone`);
    } finally {
      for (const client of idle) client.reset();
      await watching.serverClose();
      await server.serverClose();
    }
  });
}

test(`${runtimeName} monitor: who sends a request byte by byte is given up`, async () => {
  class Impatient extends GetHandler {
    protected override headerTimeout = 200;
    protected override answer(): null {
      return null;
    }
  }
  const server = new AsyncTCPServer("tcp://127.0.0.1:0", Impatient);
  await server.activate();
  const served = server.serveForever();
  const client = await openSocket(server.serverAddress);
  const dripping = setInterval(() => void client.write("G").catch(() => {}), 20);
  try {
    await client.gone;
    await until(() => server.stats.active === 0);
    assertEquals(server.stats.errors, 0);
  } finally {
    clearInterval(dripping);
    await server.shutdown();
    await served;
    await server.serverClose();
  }
});

test(`${runtimeName} monitor: an answer that is cut, that is none, or that never ends is an error`, async () => {
  const answers = ["HTTP/1.0 200 OK\r\ncontent-length: 100\r\n\r\n{", "HTTP/1.1 404 \x1b[31m\r\n\r\n", "SSH-2.0-x\r\n"];
  const server = await serve("tcp://127.0.0.1:0", async (conn) => {
    await conn.write(answers.shift() ?? "HTTP/1.0 200 OK\r\n\r\n");
    const much = new Uint8Array(1 << 20).fill(32);
    if (answers.length === 0) { for (let i = 0; i < 70; i++) await conn.write(much); }
    await conn.closeWrite();
  });
  server.handleError = () => {};
  try {
    for (const expected of [/ended after 1 of 100 bytes/, /no monitor is there/, /no monitor is there/]) {
      assertMatch(String(await assertRejects(() => fetchSnapshot(server.serverAddress), Error)), expected);
    }
    assertMatch(String(await assertRejects(() => fetchSnapshot(server.serverAddress), Error)), /longer than 67108864 bytes/);
  } finally {
    await server.serverClose();
  }
});

test(`${runtimeName} monitor: a program that is bundled with it runs itself and nothing else`, () =>
  withFolder(async (folder) => {
    const root = fileURLToPath(new URL("../../", import.meta.url));
    writeFileSync(
      `${folder}/app.ts`,
      `import { monitor } from ${JSON.stringify(`${root}monitor.ts`)};\nif (import.meta.main) console.log(typeof monitor);\n`,
    );
    const built = await run(`${root}node_modules/.bin/bun`, [
      "build",
      "--target=node",
      `--outfile=${folder}/app.mjs`,
      `${folder}/app.ts`,
    ]);
    assertEquals(built.status, 0, built.stderr);
    const [binary, ...args] = commandFor(pathToFileURL(`${folder}/app.mjs`));
    assertEquals(await run(binary!, args), { status: 0, stdout: "function\n", stderr: "" });
  }));

test(`${runtimeName} monitor: run as a program it shows the servers in a terminal`, () =>
  watched(undefined, async ({ address }) => {
    const [binary, ...args] = commandFor(new URL("../../top.ts", import.meta.url));
    const { status, stdout, stderr } = await run(binary!, [...args, address, "--once"]);
    assertEquals([status, stderr], [0, ""]);
    assertMatch(stdout, /^tcp:\/\/127\.0\.0\.1:\d+ {2}AsyncTCPServer$/m);
    assertMatch(stdout, /^ {2}requests {2}active 1 {3}accepted 3 /m);
    assertMatch(stdout, /^ {2}ended {5}peer closed 2$/m);
    assertMatch(stdout, /^ {2}longest .* tcp:\/\/127\.0\.0\.1:\d+ {3}received 5 {3}sent 5$/m);
    const none = await run(binary!, [...args, "unix:/nowhere/at/all.sock", "--once"]);
    assertEquals([none.status, none.stdout], [1, ""]);
    assertMatch(none.stderr, /ENOENT/);
    assertEquals((await run(binary!, args)).status, 1);
  }));

testWith(
  "chromium",
  "monitor: a browser shows the servers, and finds nothing amiss",
  () =>
    withFolder((folder) =>
      watched(undefined, async ({ url }) => {
        const { stdout, stderr } = await run("chromium", [
          "--headless",
          // It runs nothing but this page; as root, and in a container, the sandbox can't be had.
          "--no-sandbox",
          "--disable-gpu",
          "--disable-dev-shm-usage",
          `--user-data-dir=${folder}`,
          "--enable-logging=stderr",
          "--virtual-time-budget=2500",
          "--dump-dom",
          `${url}/`,
        ]);
        const text = stdout.replace(/<[^>]*>/g, "|");
        assertMatch(stdout, /<h2>tcp:\/\/127\.0\.0\.1:\d+ <small>AsyncTCPServer<\/small><\/h2>/);
        assertMatch(stdout, /<h2>udp:\/\/127\.0\.0\.1:\d+ <small>AsyncUDPServer<\/small><\/h2>/);
        assertMatch(text, /\|active\|+1\|/);
        assertMatch(text, /\|accepted\|+3( · 0\/s)?\|/);
        assertMatch(text, /\|peer closed\|+2\|/);
        assertMatch(text, /\|Active for longest\|+tcp:\/\/127\.0\.0\.1:\d+\|/);
        assertMatch(stdout, /<meter max="2"/);
        // What the page's script or its policy complained of.
        assertEquals(stderr.match(/CONSOLE.*/g), null);
      })
    ),
);
