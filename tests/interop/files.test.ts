/** `examples/files.ts`, with `curl` as the client. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { type Example, launch, run, runtimeName, serving, testWith, withFolder } from "./programs.ts";

/** Serves a folder with something in it. */
function servingFiles(
  listen: (folder: string) => string,
  concurrency: string,
  use: (server: Example, folder: string, ask: (path: string, ...args: string[]) => ReturnType<typeof run>) => Promise<void>,
): Promise<void> {
  return withFolder(async (folder) => {
    mkdirSync(`${folder}/root/sub dir`, { recursive: true });
    writeFileSync(`${folder}/secret`, "secret\n");
    writeFileSync(`${folder}/root/index.html`, "<h1>hello</h1>\n");
    writeFileSync(`${folder}/root/empty.txt`, "");
    writeFileSync(`${folder}/root/sub dir/über.txt`, "found\n");
    symlinkSync("../secret", `${folder}/root/way-out`);
    symlinkSync("index.html", `${folder}/root/alias.html`);
    const address = listen(folder);
    const where = address.startsWith("unix:") ? ["--unix-socket", address.slice("unix:".length)] : [];
    await serving("files.ts", ["--listen", address, "--root", `${folder}/root`, "--concurrency", concurrency], (server) => {
      const host = where.length === 0 ? server.addresses[0]!.replace("tcp:", "http:") : "http://localhost";
      return use(server, folder, (path, ...args) => run("curl", ["--silent", "--show-error", ...where, ...args, host + path]));
    });
  });
}

const overUnix = (folder: string) => `unix:${folder}/files.sock`;
const overTCP = () => "tcp://127.0.0.1:0";
const STATUS = ["--output", "/dev/null", "--write-out", "%{http_code}"];

const MODES = ["sequential", "async", "threading", "forking"];
const CELLS = MODES.flatMap((mode) => [["a Unix socket", overUnix, mode], ["TCP", overTCP, mode]] as const);

for (const [transport, listen, mode] of CELLS) {
  testWith(
    "curl",
    `files, ${mode}: pages and files over ${transport}, 16 MiB byte for byte`,
    () =>
      servingFiles(listen, mode, async (_server, folder, ask) => {
        if (listen === overUnix) assertEquals(statSync(`${folder}/files.sock`).mode & 0o777, 0o600);
        const page = { status: 0, stdout: "<h1>hello</h1>\n", stderr: "" };
        assertEquals(await ask("/"), page);
        assertEquals(await ask("/index.html?query#fragment"), page);
        assertEquals(await ask("/alias.html"), page);
        assertEquals(await ask("/empty.txt"), { ...page, stdout: "" });
        assertEquals((await ask("/sub%20dir/%C3%BCber.txt")).stdout, "found\n");
        const { stdout } = await ask("/", "--head");
        assertMatch(stdout, /^HTTP\/1\.0 200 OK\r\n/);
        for (const header of ["content-type: text/html; charset=utf-8", "content-length: 15", "connection: close"]) {
          assert(stdout.includes(`\r\n${header}\r\n`), stdout);
        }
        assertMatch(stdout, /\r\nlast-modified: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n([^]*\r\n)?\r\n$/);
        const data = new Uint8Array(16 << 20).map((_, i) => (i * 7 + (i >> 10)) & 255);
        writeFileSync(`${folder}/root/big.bin`, data);
        const copied = await ask(
          "/big.bin",
          "--output",
          `${folder}/copy`,
          "--write-out",
          "%{http_code} %{content_type}",
        );
        assertEquals([copied.status, copied.stdout], [0, "200 application/octet-stream"]);
        assertEquals(Buffer.compare(readFileSync(`${folder}/copy`), data), 0);
      }),
  );
}

testWith("curl", "files: what is not served", () =>
  servingFiles(overUnix, "async", async (_server, _folder, ask) => {
    for (
      const [path, status] of [
        ["/nothing", "404"],
        ["/index.html/", "404"],
        ["/index.html/more", "404"],
        ["/sub%20dir/", "404"],
        [`/${"x".repeat(300)}`, "404"],
        ["/../secret", "403"],
        ["/%2e%2e/secret", "403"],
        ["/..%2Fsecret", "403"],
        ["/sub%20dir/../../secret", "403"],
        ["/way-out", "403"],
        ["/%00", "400"],
        ["/%ff", "400"],
        ["/%", "400"],
        [`/${"x".repeat(9000)}`, "414"],
      ] as const
    ) assertEquals((await ask(path, "--path-as-is", ...STATUS)).stdout, status, path);
    assertEquals((await ask("/nothing")).stdout, "404 Not Found\n");
    assertMatch((await ask("/sub%20dir", "--head")).stdout, /^HTTP\/1\.0 301 [^]*\r\nlocation: \/sub%20dir\/\r\n/);
  }));

testWith(
  "curl",
  "files: what is not done, and the answer reaches a client that has sent a lot",
  () =>
    servingFiles(overTCP, "async", async (_server, folder, ask) => {
      writeFileSync(`${folder}/upload`, new Uint8Array(1 << 20));
      const { stdout } = await ask("/", "--include", "--data-binary", `@${folder}/upload`, "--header", "expect:");
      assertMatch(stdout, /^HTTP\/1\.0 405 Method Not Allowed\r\n[^]*\r\nallow: GET, HEAD\r\n[^]*405 Method Not Allowed\n$/);
      assertEquals((await ask("/", "--request", "DELETE", ...STATUS)).stdout, "405");
      assertEquals((await ask("/", "--request", "get", ...STATUS)).stdout, "400");
      const many = Array.from({ length: 120 }, (_, i) => ["--header", `x-${i}: y`]).flat();
      assertEquals((await ask("/", ...many, ...STATUS)).stdout, "431");
      assertEquals((await ask("/", "--header", `x: ${"y".repeat(9000)}`, ...STATUS)).stdout, "431");
    }),
);

for (const mode of MODES.filter((mode) => mode !== "sequential")) {
  // A process for each takes a while to start.
  const count = mode === "forking" ? 5 : 20;
  testWith(
    "curl",
    `files, ${mode}: ${count} clients at once, one of which reads slowly`,
    () =>
      servingFiles(overUnix, mode, async (_server, folder, ask) => {
        writeFileSync(`${folder}/root/big.bin`, new Uint8Array(2 << 20));
        // It takes a second, or what the others need when that is more.
        const slow = ask("/big.bin", "--limit-rate", "2M", ...STATUS);
        const others = await Promise.all(Array.from({ length: count - 1 }, () => ask("/")));
        for (const { stdout } of others) assertEquals(stdout, "<h1>hello</h1>\n");
        assertEquals((await slow).stdout, "200");
      }),
  );
}

void test(`${runtimeName} files: a wrong argument is one line on stderr and status 1`, () =>
  withFolder(async (folder) => {
    for (
      const [args, reason] of [
        [["--listen", "udp://127.0.0.1:0"], /^TypeError: --listen takes tcp:.* got udp:\/\/127\.0\.0\.1:0\n$/],
        [["--concurrency", "magic"], /^TypeError: --concurrency takes sequential, .* got magic\n$/],
        [["--listen", `unix:${folder}/s`, "--mode", "9"], /^TypeError: --mode takes octal .* got 9\n$/],
        [["--listen", `unix:${folder}/s`, "--root", `${folder}/nowhere`], /^Error: ENOENT: [^\n]*\n$/],
      ] as const
    ) {
      const { status, stdout, stderr } = await launch("files.ts", [...args]).finish();
      assertEquals([status, stdout], [1, ""]);
      assertMatch(stderr, reason);
      assert(!existsSync(`${folder}/s`));
    }
  }));
