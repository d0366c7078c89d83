/** `examples/syslog.ts`, with `logger` as the one that reports. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { existsSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { test } from "node:test";
import { launch, missingUnixDatagram, run, runtimeName, serving, testWith, withFolder } from "./programs.ts";

const UDP = ["--listen", "udp://127.0.0.1:0"];
const STAMP = String.raw`[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d`;
const HOST = hostname().split(".")[0]!;

async function logger(...args: string[]): Promise<void> {
  assertEquals(await run("logger", args), { status: 0, stdout: "", stderr: "" });
}

testWith("logger", "syslog: messages of RFC 5424 over UDP", () =>
  serving("syslog.ts", UDP, async (server) => {
    const to = ["--udp", "--server", "127.0.0.1", "--port", server.port, "--rfc5424"];
    await logger(...to, "--priority", "mail.warning", "--tag", "postfix", "--id=4711", "disk is full: 98 %");
    assertMatch(
      await server.line(),
      new RegExp(
        String.raw`^mail\.warning \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d ${HOST}\S* postfix\[4711\]: ` +
          String.raw`(\[timeQuality .*\] )?disk is full: 98 %$`,
      ),
    );
    await logger(...to, "--sd-id", "x@1", "--sd-param", 'k="a \\"b\\" \\] c"', "grüße");
    assertMatch(await server.line(), /^user\.notice .* \S+: (\[timeQuality .*\])?\[x@1 k="a \\"b\\" \\\] c"\] grüße$/);
  }));

testWith("logger", "syslog: messages of RFC 3164 over UDP", () =>
  serving("syslog.ts", UDP, async (server) => {
    const to = ["--udp", "--server", "127.0.0.1", "--port", server.port, "--rfc3164"];
    await logger(...to, "--priority", "local7.debug", "--tag", "app", "--id=12", "hello [world]: x");
    assertMatch(await server.line(), new RegExp(String.raw`^local7\.debug ${STAMP} ${HOST} app\[12\]: hello \[world\]: x$`));
    await logger(...to, "--tag", "app", "a\tb\u001b[31m");
    assertMatch(await server.line(), new RegExp(String.raw`^user\.notice ${STAMP} ${HOST} app: a\\x09b\\x1b\[31m$`));
  }));

testWith("logger", "syslog: every line of a file, in order", () =>
  serving("syslog.ts", UDP, async (server) => {
    const input = Array.from({ length: 100 }, (_, i) => `line ${i}\n`).join("");
    const to = ["--udp", "--server", "127.0.0.1", "--port", server.port, "--rfc3164", "--tag", "t"];
    assertEquals((await run("logger", to, input)).status, 0);
    for (let i = 0; i < 100; i++) assert((await server.line()).endsWith(` t: line ${i}`));
  }));

if (missingUnixDatagram === false) {
  testWith(
    "logger",
    "syslog: a program on this machine, over a Unix socket that everybody may write to",
    () =>
      withFolder((folder) => {
        const path = `${folder}/log.sock`;
        return serving("syslog.ts", ["--listen", `unixgram:${path}`, ...UDP, "--mode", "666"], async (server) => {
          assertEquals(server.addresses[0], `unixgram:${path}`);
          assertEquals(statSync(path).mode & 0o777, 0o666);
          await logger("--socket", path, "--socket-errors=on", "--priority", "auth.info", "--tag", "su", "--id=7", "let in");
          assertMatch(await server.line(), new RegExp(String.raw`^auth\.info ${STAMP} - su\[7\]: let in$`));
          await logger("--socket", path, "--socket-errors=on", "by its user");
          assertMatch(await server.line(), new RegExp(String.raw`^user\.notice ${STAMP} - \S+: by its user$`));
          // The second address is served beside the first.
          const port = /\d+$/.exec(server.addresses[1]!)![0];
          await logger("--udp", "--server", "127.0.0.1", "--port", port, "--tag", "net", "far");
          assertMatch(await server.line(), /net: .*far$/);
        }).then(() => assert(!existsSync(path), "the socket's file is left behind"));
      }),
  );

  testWith(
    "logger",
    "syslog: a thousand messages to a Unix socket, none lost",
    () =>
      withFolder((folder) =>
        serving("syslog.ts", ["--listen", `unixgram:${folder}/log.sock`], async (server) => {
          const input = Array.from({ length: 1000 }, (_, i) => `line ${i}\n`).join("");
          const { status } = await run("logger", ["--socket", `${folder}/log.sock`, "--socket-errors=on", "--tag", "t"], input);
          assertEquals(status, 0);
          for (let i = 0; i < 1000; i++) assert((await server.line()).endsWith(` t: line ${i}`));
        })
      ),
  );
} else {
  void test(`${runtimeName} syslog: without Unix datagram sockets the program says what would make it work`, () =>
    withFolder(async (folder) => {
      const { status, stdout, stderr } = await launch("syslog.ts", [...UDP, "--listen", `unixgram:${folder}/log.sock`]).finish();
      assertEquals(status, 1);
      assertMatch(stdout, /^(listening udp:.*\n)?$/);
      assertMatch(stderr, /^UnsupportedError: [^\n]*\n$/);
      assert(stderr.includes(missingUnixDatagram as string), stderr);
      assert(!existsSync(`${folder}/log.sock`));
    }));
}

void test(`${runtimeName} syslog: a wrong argument is one line on stderr and status 1`, async () => {
  for (
    const [args, reason] of [
      [["--listen", "tcp://127.0.0.1:0"], /^TypeError: --listen takes udp:.* got tcp:\/\/127\.0\.0\.1:0\n$/],
      [[...UDP, "--mode", "rw"], /^TypeError: --mode takes octal .* got rw\n$/],
      [["--listen", "udp://192.0.2.1:5514"], /^SocketError: \S+ EADDRNOTAVAIL: [^\n]*\n$/],
    ] as const
  ) {
    const { status, stdout, stderr } = await launch("syslog.ts", [...args]).finish();
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, reason);
  }
});
