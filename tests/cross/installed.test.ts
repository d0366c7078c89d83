/**
 * The package as its users have it: for Deno modules that a server sends, as JSR does; for Bun and Node JavaScript in node_modules. Its
 * threads and processes must start there too, with handlers of the user's own.
 */
import { assertEquals } from "@std/assert";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { run, runtimeName } from "../interop/programs.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

const HANDLER = `
import { StreamRequestHandler } from "@sockets/server";

export default class Handler extends StreamRequestHandler {
  async handle() {
    for await (const line of this.rfile) {
      const may = globalThis.Deno?.permissions.querySync({ name: "write" }).state ?? "granted";
      await this.wfile.write(line.toUpperCase() + " " + this.server.data + (may === "granted" ? "" : " that may not write") + "\\n");
    }
  }
}
`;
const MAIN = `
import { connect, ForkingTCPServer, Replicas, StreamReader, TCPServer, ThreadingTCPServer } from "@sockets/server";
import Handler from "./handler.mjs";

export const plain = (address, options) => new TCPServer(address, Handler, options);

async function ask(server) {
  await server.activate();
  const serving = server.serveForever();
  const client = await connect(server.serverAddress);
  await client.write("hello\\n");
  console.log(await new StreamReader(client).readLine());
  await client.close();
  await server.shutdown({ drain: 1000 });
  await serving;
  await server.serverClose();
}

if (import.meta.main ?? process.argv[1].endsWith("main.mjs")) {
  const handler = new URL("./handler.mjs", import.meta.url);
  await ask(new ThreadingTCPServer("tcp://127.0.0.1:0", handler, { data: "from a thread" }));
  await ask(new ForkingTCPServer("tcp://127.0.0.1:0", handler, { data: "from a process" }));
  await ask(new Replicas("tcp://127.0.0.1:0", new URL("./main.mjs#plain", import.meta.url), { count: 1, data: "from a replica" }));
}
`;
const output = (and = "") => ["thread", "process", "replica"].map((worker) => `HELLO from a ${worker}${and}\n`).join("");

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "sockets-installed-"));
  try {
    writeFileSync(join(folder, "main.mjs"), MAIN);
    writeFileSync(join(folder, "handler.mjs"), HANDLER);
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (runtimeName === "deno") {
  const it = (name: string, and: string, permissions: (folder: string, host: string) => string[]) =>
    void test(`deno: the package that a server sends starts threads, processes and replicas${name}`, () =>
      inFolder(async (folder) => {
        const server = createServer((request, response) => {
          response.setHeader("content-type", "text/typescript");
          response.end(readFileSync(join(root, new URL(request.url!, "http://localhost").pathname)));
        });
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
        try {
          const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
          const config = { imports: { "@sockets/server": `http://${host}/mod.ts` }, unstable: ["net"] };
          writeFileSync(join(folder, "deno.json"), JSON.stringify(config));
          const args = ["run", "--no-lock", "--no-prompt", ...permissions(folder, host), join(folder, "main.mjs")];
          const { status, stdout, stderr } = await run(process.execPath, args, "", folder);
          assertEquals([stdout, status], [output(and), 0], stderr);
        } finally {
          await new Promise((resolve) => server.close(resolve));
        }
      }));

  it("", "", () => ["-A"]);
  it(", which may do no more than the program", " that may not write", (folder, host) => [
    "--allow-net=127.0.0.1",
    `--allow-read=${folder}`,
    `--allow-run=${process.execPath}`,
    "--allow-env",
    `--allow-import=${host}`,
  ]);
} else {
  test(`${runtimeName}: the package in node_modules, as JavaScript, starts threads, processes and replicas`, () =>
    inFolder(async (folder) => {
      const installed = join(folder, "node_modules/@sockets/server");
      mkdirSync(installed, { recursive: true });
      const config = join(folder, "tsconfig.json");
      writeFileSync(
        config,
        JSON.stringify({
          extends: join(root, "tsconfig.json"),
          compilerOptions: {
            noEmit: false,
            noCheck: true,
            allowImportingTsExtensions: false,
            rewriteRelativeImportExtensions: true,
            rootDir: root,
            outDir: installed,
            typeRoots: [join(root, "node_modules/@types")],
          },
          include: [],
          files: [join(root, "mod.ts")],
        }),
      );
      execFileSync(join(root, "node_modules/.bin/tsc"), ["-p", config]);
      writeFileSync(
        join(installed, "package.json"),
        JSON.stringify({ name: "@sockets/server", version: "0.0.0", type: "module", exports: "./mod.js" }),
      );
      const { status, stdout, stderr } = await run(process.execPath, [join(folder, "main.mjs")], "", folder);
      assertEquals([stdout, status], [output(), 0], stderr);
    }));
}
