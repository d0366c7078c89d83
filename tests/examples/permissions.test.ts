/**
 * The examples do what they are for with the permissions that their first comments name, and no others. Each `deno run` line there is
 * run as it stands, on a port and in a folder of the test's own.
 */
import { assert, assertEquals } from "@std/assert";
import { bind, connect, formatAddress, getRuntime, parseAddress } from "@sockets/server";
import { chmodSync, lstatSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { commandFor } from "../conformance/children.ts";
import { Program, withFolder } from "../interop/programs.ts";

const examples = fileURLToPath(new URL("../../examples/", import.meta.url));
const commands = readdirSync(examples).filter((name) => name.endsWith(".ts")).flatMap((name) => {
  const comment = /^\/\*\*[^]*?\*\//.exec(readFileSync(join(examples, name), "utf8"))![0];
  return [...comment.matchAll(/^ \* {5}(deno run .*)$/gm)].map(([, line]) => ({ name, line: line! }));
});

const isDeno = getRuntime().name === "deno";

/** What a client says to an example, and what the answer begins with. */
const TALKS: Record<string, [said: string | Uint8Array, heard: string]> = {
  "echo.ts": ["hello", "hello"],
  "resp.ts": ["PING\r\n", "+PONG\r\n"],
  "kv.ts": ["SET color red\n", "OK\n"],
  "mandelbrot.ts": ["8 2 10\n", "mandelbrot 8 2 10\n"],
  "files.ts": ["GET /deno.json HTTP/1.0\r\n\r\n", "HTTP/1.0 200 "],
  // Question 4660: example.test, SOA. The answer has the same number and the bits of an authoritative answer.
  "dns.ts": [
    Uint8Array.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7, ...text("example"), 4, ...text("test"), 0, 0, 6, 0, 1]),
    "\x124",
  ],
};

function text(word: string): Uint8Array {
  return new TextEncoder().encode(word);
}

if (!isDeno) {
  test(`${getRuntime().name}: permissions [skipped: they are Deno's, and tested there]`, { skip: true }, () => {});
}

for (const { name, line } of isDeno ? commands : []) {
  test(`deno ${name}: ${line}`, () =>
    withFolder(async (folder) => {
      assert(!/ (-A|--allow-all)( |$)/.test(line), "an example needs no permission for everything");
      writeFileSync(join(folder, "zone.json"), JSON.stringify({ origin: "example.test", ttl: 1, records: {} }));
      const args = line.split(" ").slice(1).map((word) =>
        word.replaceAll("/tmp", folder).replace(/^((?:tcp|udp):.*):\d+$/, "$1:0").replace("zone.json", join(folder, "zone.json"))
      );
      args.splice(1, 0, "--no-prompt", "--no-check");
      // `--allow-run=deno` is the one that is found by its name.
      const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` };
      const program = new Program(process.execPath, args, undefined, env);
      try {
        const first = await program.line();
        assert(first.startsWith("listening "), first);
        await talk(name, first.slice("listening ".length), program);
        program.kill("SIGTERM");
        assertEquals(await program.exited, 0);
        assertEquals(program.stderr, "");
      } finally {
        program.kill("SIGKILL");
        await program.exited;
      }
    }));
}

async function talk(name: string, where: string, program: Program): Promise<void> {
  const address = parseAddress(where);
  const datagrams = address.transport === "udp" || address.transport === "unixgram";
  if (name === "syslog.ts") {
    const socket = await bind(address.transport === "udp" ? "udp://127.0.0.1:0" : "unixgram:");
    await socket.send("<14>Nov 24 08:08:18 web1 app: hello", address);
    await socket.close();
    return assertEquals(await program.line(), "user.info Nov 24 08:08:18 web1 app: hello");
  }
  const [said, heard] = TALKS[name]!;
  let answer: Uint8Array;
  if (datagrams) {
    const socket = await bind(address.transport === "udp" ? "udp://127.0.0.1:0" : "unixgram:");
    await socket.send(said, address);
    answer = (await socket.receive())!.data;
    await socket.close();
  } else {
    const client = await connect(address);
    await client.write(said);
    answer = (await client.read())!;
    // All of it is taken, so that nothing is left to complain of.
    await client.closeWrite();
    while (await client.read() !== null);
    await client.close();
  }
  const latin1 = String.fromCharCode(...answer);
  assert(latin1.startsWith(heard), `${formatAddress(address)} says ${JSON.stringify(latin1)}`);
}

for (const [name, net] of isDeno ? [["that of its path", true], ["all of it", false]] as const : []) {
  test(`deno: a Unix socket with --allow-net (${name}), in a folder of its own and in one that others may write`, () =>
    withFolder(async (folder) => {
      const [deno, ...command] = commandFor(new URL("../conformance/programs/unix_server.ts", import.meta.url));
      const path = join(folder, "s");
      const flags = [
        "--no-prompt",
        net ? `--allow-net=unix:${path}` : "--allow-net",
        `--allow-read=${fileURLToPath(new URL("../..", import.meta.url))},${folder}`,
        `--allow-write=${folder}`,
      ];
      const start = async (mode: number, more: string[] = []) => {
        const program = new Program(deno!, command.flatMap((word) => word === "-A" ? [...flags, ...more] : [word]));
        assertEquals(await program.line(), "ready");
        program.send(`activate unix ${path} ${mode}\n`);
        return { program, answer: await program.line() };
      };
      const close = async (program: Program) => {
        program.send("close\n");
        assertEquals(await program.line(), "closed");
        program.end();
        assertEquals(await program.exited, 0);
      };
      for (const mode of [0o600, 0o666]) {
        const { program, answer } = await start(mode);
        assertEquals(answer, "bound");
        assertEquals(lstatSync(path).mode & 0o777, mode);
        assertEquals(readdirSync(folder), ["s"]);
        // Another file in its place is left alone.
        rmSync(path);
        writeFileSync(path, "precious");
        await close(program);
        assertEquals(readFileSync(path, "utf8"), "precious");
        rmSync(path);
      }
      chmodSync(folder, 0o777);
      const refused = await start(0o666);
      assert(refused.answer.startsWith("EACCES") && refused.answer.includes("--allow-sys"), refused.answer);
      assertEquals(readdirSync(folder), []);
      refused.program.end();
      assertEquals(await refused.program.exited, 0);
      const allowed = await start(0o666, ["--allow-sys"]);
      assertEquals(allowed.answer, "bound");
      assertEquals(lstatSync(path).mode & 0o777, 0o666);
      await close(allowed.program);
      assertEquals(readdirSync(folder), []);
    }));
}

/** What is tried, and the flags that the errors name one after the other until it is permitted. */
const PERMITTED: [what: string, args: string[], flags: string[]][] = [
  ["tcp", ["tcp://127.0.0.1:0"], ["--allow-net=127.0.0.1:0"]],
  ["tcp", ["tcp://[::1]:0"], ["--allow-net=[::1]:0"]],
  ["tcp by family", ["tcp://localhost:0"], ["--allow-net=localhost", "--allow-net=127.0.0.1:0"]],
  ["tls", ["tls://127.0.0.1:0", "FOLDER/cert.pem"], ["--allow-read=FOLDER/cert.pem"]],
  ["udp", ["udp://127.0.0.1:0"], ["--allow-net=127.0.0.1:0"]],
  ["unix", ["unix:FOLDER/s"], ["--allow-read=FOLDER", "--allow-write=FOLDER", "--allow-net=unix:FOLDER/s"]],
  ["unix", ["unix:\\0sockets-permitted"], ["--allow-net"]],
  ["unixgram", ["unixgram:FOLDER/s"], ["--allow-ffi", "--allow-read=FOLDER", "--allow-write=FOLDER"]],
  ["connect", ["tcp://127.0.0.1:1"], ["--allow-net=127.0.0.1:1"]],
  ["connect", ["unix:FOLDER/s"], ["--allow-read=FOLDER/s", "--allow-write=FOLDER/s", "--allow-net=unix:FOLDER/s"]],
  ["send", ["udp://127.0.0.1:0", "udp://127.0.0.1:9"], ["--allow-net=127.0.0.1:0", "--allow-net=127.0.0.1"]],
  ["send", ["udp://127.0.0.1:0", "udp://localhost:9"], ["--allow-net=127.0.0.1:0", "--allow-net=localhost"]],
  ["forking", ["tcp://127.0.0.1:0"], ["--allow-net=127.0.0.1:0", "--allow-env", "--allow-run=deno"]],
];

for (const unstable of isDeno ? [true, false] : []) {
  for (const [what, args, expected] of PERMITTED) {
    // `node:dgram`, which stands in for Deno's own socket, looks names up by itself.
    if (!unstable && (what !== "udp" && what !== "send" || args.some((arg) => arg.includes("localhost")))) continue;
    test(`deno: what is not permitted is EACCES and names the flags: ${what} ${args.join(" ")}${unstable ? "" : ", node:dgram"}`, () =>
      withFolder(async (folder) => {
        const here = (text: string) => text.replaceAll("FOLDER", folder);
        if (what === "tls") writeFileSync(join(folder, "cert.pem"), "none");
        const root = fileURLToPath(new URL("../..", import.meta.url));
        const program = fileURLToPath(new URL("../conformance/programs/permitted.ts", import.meta.url));
        const map = join(root, "tests/offline/import_map.json");
        const flags = ["--no-prompt", "--no-check", `--allow-read=${root}`];
        // Without the project's configuration, which has it too.
        flags.push("--no-config", `--import-map=${map}`, ...(unstable ? ["--unstable-net"] : []));
        const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` };
        const named: string[] = [];
        for (;;) {
          const { status, stdout, stderr } = await new Program(
            process.execPath,
            ["run", ...flags, ...named, program, what, ...args.map(here)],
            folder,
            env,
          ).finish();
          assertEquals([status, stderr], [0, ""]);
          const error = JSON.parse(stdout) as null | { name: string; code?: string; message: string; cause?: string };
          // That it is permitted doesn't mean that it can be done.
          if (error === null || !error.message.includes("--allow-")) break;
          if (error.name !== "UnsupportedError") {
            assertEquals([error.name, error.code], ["SocketError", "EACCES"]);
            assert(error.cause !== undefined, "the runtime's own error is the cause");
          }
          const more = error.message.match(/--allow-[^\s,]+/g)!.filter((flag) => !named.includes(flag));
          assert(more.length > 0, `${named.join(" ")}, and still: ${error.message}`);
          // The second one of a datagram's is the alternative.
          named.push(...(what === "send" ? more.slice(0, 1) : more));
        }
        assertEquals(named, expected.map(here));
      }));
  }
}

if (isDeno) {
  test("deno: the permissions that SECURITY.md has for UDP let a server reply", async () => {
    const security = readFileSync(new URL("../../SECURITY.md", import.meta.url), "utf8");
    const [, flag] = /^\| UDP +\| `(--allow-net=[^`]+)`/m.exec(security)!;
    const args = ["run", "--no-prompt", "--no-check", flag!.replace("0.0.0.0:9000", "0.0.0.0:0"), join(examples, "echo.ts")];
    const program = new Program(process.execPath, [...args, "--listen", "udp://0.0.0.0:0"]);
    try {
      const { port } = parseAddress((await program.line()).slice("listening ".length)) as { port: number };
      const client = await bind("udp://127.0.0.1:0");
      client.timeout = 10_000;
      await client.send("hello", `udp://127.0.0.1:${port}`);
      assertEquals((await client.receive())!.data, text("hello"));
      await client.close();
      program.kill("SIGTERM");
      assertEquals([await program.exited, program.stderr], [0, ""]);
    } finally {
      program.kill("SIGKILL");
      await program.exited;
    }
  });
}
