import { assert, assertEquals, assertMatch } from "@std/assert";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FileHandler, type FileServerOptions, makeServer, MAX_HEADERS, MAX_LINE } from "../../examples/files.ts";
import { type Client, openSocket, portOf } from "../conformance/adapters.ts";

const SIZE = 8 << 20;

/** Serves a folder with two files, hands out clients, and ends them all. */
async function withServer(
  body: (open: () => Promise<Client>, port: number) => Promise<void>,
  options: FileServerOptions = {},
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "sockets-files-"));
  writeFileSync(join(folder, "a.txt"), "a\n");
  writeFileSync(join(folder, "big.bin"), new Uint8Array(SIZE).fill(97));
  const server = makeServer("tcp://127.0.0.1:0", folder, options);
  await server.activate();
  const serving = server.serveForever();
  const clients: Client[] = [];
  try {
    await body(async () => {
      const client = await openSocket(server.serverAddress);
      clients.push(client);
      return client;
    }, portOf(server));
  } finally {
    for (const client of clients) client.reset();
    await server.shutdown({ drain: 5000 });
    await serving;
    await server.serverClose();
    rmSync(folder, { recursive: true });
  }
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

for (const concurrency of ["sequential", "async", "threading", "forking"]) {
  test(`files, ${concurrency}: requests and the status of each`, () =>
    withServer(async (open) => {
      const headers = (count: number) => Array.from({ length: count }, (_, i) => `x-${i}: y\r\n`).join("");
      for (
        const [request, status] of [
          ["GET /a.txt HTTP/1.0\r\n\r\n", 200],
          ["GET /a.txt HTTP/1.1\nhost: x\n\n", 200],
          ["HEAD /a.txt HTTP/1.0\r\n\r\n", 200],
          [`GET /a.txt HTTP/1.0\r\n${headers(MAX_HEADERS)}\r\n`, 200],
          [`GET /a.txt HTTP/1.0\r\n${headers(MAX_HEADERS + 1)}\r\n`, 431],
          [`GET /a.txt HTTP/1.0\r\nx: ${"y".repeat(MAX_LINE)}\r\n\r\n`, 431],
          [`GET /${"x".repeat(MAX_LINE)}`, 414],
          ["x".repeat(1_000_000), 414],
          ["GET /a.txt\r\n\r\n", 400],
          ["GET a.txt HTTP/1.0\r\n\r\n", 400],
          ["GET http://127.0.0.1/a.txt HTTP/1.0\r\n\r\n", 400],
          ["GET /a b.txt HTTP/1.0\r\n\r\n", 400],
          ["GET /a.txt HTTP/2.0\r\n\r\n", 400],
          ["\r\n\r\n", 400],
          ["POST /a.txt HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi", 405],
          ["PRI * HTTP/2.0\r\n\r\n", 400],
          ["GET //a.txt HTTP/1.0\r\n\r\n", 200],
          ["GET /./a.txt HTTP/1.0\r\n\r\n", 200],
          ["GET /../a.txt HTTP/1.0\r\n\r\n", 403],
          ["GET /none HTTP/1.0\r\n\r\n", 404],
          ["GET / HTTP/1.0\r\n\r\n", 404],
        ] as const
      ) {
        const client = await open();
        await client.write(request);
        const answer = text(await client.readAll());
        await client.end();
        assertEquals(answer.slice(0, 13), `HTTP/1.0 ${status} `, request.slice(0, 60));
        const [head, body] = [answer.slice(0, answer.indexOf("\r\n\r\n")), answer.slice(answer.indexOf("\r\n\r\n") + 4)];
        const length = Number(/\r\ncontent-length: (\d+)/.exec(head)![1]);
        assertEquals(body.length, request.startsWith("HEAD") ? 0 : length, request.slice(0, 60));
      }
    }, { concurrency }));

  test(`files, ${concurrency}: a client that doesn't read ${concurrency === "sequential" ? "holds the next up" : "holds nobody up"}`, () =>
    withServer(async (open, port) => {
      const slow = connect({ host: "127.0.0.1", port }).pause();
      const begun = new Promise<void>((resolve) => slow.once("readable", resolve));
      slow.write("GET /big.bin HTTP/1.0\r\n\r\n");
      await begun;
      const quick = await open();
      await quick.write("GET /a.txt HTTP/1.0\r\n\r\n");
      let answered = false;
      const answer = quick.readAll().then((answer) => {
        answered = true;
        return text(answer);
      });
      if (concurrency !== "sequential") assertMatch(await answer, /^HTTP\/1\.0 200 /);
      else assertEquals(answered, false);
      let size = 0;
      for await (const chunk of slow) size += (chunk as Uint8Array).length;
      assert(size > SIZE);
      assertMatch(await answer, /^HTTP\/1\.0 200 /);
    }, { concurrency }));
}

test("files: a request that its sender ends in the middle is a bad one", () =>
  withServer(async (open) => {
    const client = await open();
    await client.write("GET /a.txt HTTP/1.0\r\n");
    await client.end();
    assertMatch(text(await client.readAll()), /^HTTP\/1\.0 400 /);
    assertEquals(await client.gone, null);
  }));

test("files: a request may come byte by byte", () =>
  withServer(async (open) => {
    const client = await open();
    for (const char of "GET /a.txt HTTP/1.0\r\n\r\n") await client.write(char);
    assertMatch(text(await client.readAll()), /^HTTP\/1\.0 200 [^]*\r\n\r\na\n$/);
  }));

test("files: a big file arrives whole, also when the client sends more meanwhile", () =>
  withServer(async (open) => {
    const client = await open();
    await client.write("GET /big.bin HTTP/1.0\r\n\r\nGET /a.txt HTTP/1.0\r\n\r\n");
    const answer = await client.readAll();
    assert(text(answer.subarray(0, 500)).includes(`content-length: ${SIZE}\r\n`));
    assertEquals(answer.length - SIZE, answer.indexOf(97, text(answer.subarray(0, 500)).indexOf("\r\n\r\n")));
  }));

test("files: a client that is silent is told and closed", () => {
  class Impatient extends FileHandler {
    override timeout = 20;
  }
  return withServer(async (open) => {
    const client = await open();
    assertMatch(text(await client.readAll()), /^HTTP\/1\.0 408 /);
  }, { Handler: Impatient });
});
