/** `examples/dns.ts`, with `dig` and `dnsperf` as clients. */
import { assertEquals, assertMatch } from "@std/assert";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { type Example, launch, run, runtimeName, serving, testWith, withFolder } from "./programs.ts";

const LISTEN = ["--listen", "udp://127.0.0.1:0"];

function dig(server: Example, ...args: string[]): Promise<{ status: number | string | null; stdout: string }> {
  // Patient, so that a busy machine is no failure; a query that is lost is sent again.
  return run("dig", ["@127.0.0.1", "-p", server.port, "+timeout=5", "+tries=3", ...args]);
}

/** What dig says in short. */
async function short(server: Example, ...args: string[]): Promise<string[]> {
  const { status, stdout } = await dig(server, "+short", ...args);
  assertEquals(status, 0, stdout);
  return stdout.split("\n").filter((line) => line !== "").sort();
}

/** The status, the flags and the numbers of records as dig shows them. */
async function header(server: Example, ...args: string[]): Promise<string> {
  const { status, stdout } = await dig(server, "+norecurse", ...args);
  assertEquals(status, 0, stdout);
  const [, code, flags, answers, authorities] =
    /status: (\w+),[^]*?flags: ([a-z ]*);.* ANSWER: (\d+), AUTHORITY: (\d+)/.exec(stdout) ?? [];
  return `${code} ${flags} ${answers} ${authorities}`;
}

testWith("dig", "dns: addresses and texts", () =>
  serving("dns.ts", LISTEN, async (server) => {
    assertEquals(await short(server, "www.example.test", "A"), ["192.0.2.10", "192.0.2.11"]);
    assertEquals(await short(server, "www.example.test", "AAAA"), ["2001:db8::10"]);
    assertEquals(await short(server, "example.test", "TXT"), ['"v=spf1 -all"']);
    assertEquals(await short(server, "example.test", "NS"), ["ns.example.test."]);
    assertMatch((await short(server, "example.test", "SOA"))[0]!, /^ns\.example\.test\. hostmaster\.example\.test\. 1 /);
    assertEquals(await header(server, "www.example.test", "A"), "NOERROR qr aa 2 0");
    // The question comes back as it was asked, capitals included, or dig would not take it for an answer.
    assertMatch((await dig(server, "wWw.ExAmPlE.tEsT", "A")).stdout, /^wWw\.ExAmPlE\.tEsT\.\s+300\s+IN\s+A\s+192\.0\.2\.1[01]$/m);
  }));

testWith("dig", "dns: what is not there", () =>
  serving("dns.ts", LISTEN, async (server) => {
    assertEquals(await header(server, "nobody.example.test", "A"), "NXDOMAIN qr aa 0 1");
    assertEquals(await header(server, "www.example.test", "TXT"), "NOERROR qr aa 0 1");
    assertEquals(await header(server, "www.example.test", "TYPE65280"), "NOERROR qr aa 0 1");
    assertEquals(await header(server, "long.way.down.example.test", "A"), "NOERROR qr aa 0 1");
    assertEquals(await header(server, "way\\.down.example.test", "TXT"), "NXDOMAIN qr aa 0 1");
    assertEquals(await header(server, "example.org", "A"), "REFUSED qr 0 0");
    assertEquals(await header(server, "badexample.test", "A"), "REFUSED qr 0 0");
    assertEquals(await header(server, ".", "NS"), "REFUSED qr 0 0");
    assertEquals(await header(server, "example.test", "A", "-c", "CH"), "REFUSED qr 0 0");
  }));

testWith("dig", "dns: what it doesn't do", () =>
  serving("dns.ts", LISTEN, async (server) => {
    assertEquals(await header(server, "+opcode=notify", "example.test", "SOA"), "NOTIMP qr 0 0");
    assertEquals(await header(server, "+opcode=15", "example.test", "A"), "NOTIMP qr 0 0");
    assertEquals(await header(server, "+header-only", "example.test", "A"), "FORMERR qr 0 0");
    assertEquals(await header(server, "+edns=1", "+noednsneg", "example.test", "A"), "BADVERS qr 0 0");
  }));

testWith(
  "dig",
  "dns: an answer that is too long for the client is cut, and its flag says so",
  () =>
    serving("dns.ts", LISTEN, async (server) => {
      const large = ["+ignore", "large.example.test", "TXT"];
      assertEquals(await header(server, "+noedns", ...large), "NOERROR qr aa tc 0 0");
      assertEquals(await header(server, "+bufsize=600", ...large), "NOERROR qr aa tc 0 0");
      assertEquals(await header(server, "+bufsize=1232", ...large), "NOERROR qr aa 1 0");
      const [text] = await short(server, "+bufsize=1232", ...large);
      assertEquals(text!.replace(/" "|"/g, ""), "0123456789".repeat(70));
      assertMatch((await dig(server, "+bufsize=4096", ...large)).stdout, /^; EDNS: version: 0, flags:; udp: 1232$/m);
    }),
);

testWith("dig", "dns: a zone of one's own", () =>
  withFolder(async (folder) => {
    const zone = `${folder}/zone.json`;
    writeFileSync(zone, JSON.stringify({ origin: "Corp.Test.", ttl: 5, records: { db: { A: ["10.0.0.1"] } } }));
    await serving("dns.ts", [...LISTEN, "--zone", zone], async (server) => {
      assertMatch((await dig(server, "db.corp.test", "A")).stdout, /^db\.corp\.test\.\s+5\s+IN\s+A\s+10\.0\.0\.1$/m);
    });
  }));

testWith(
  "dnsperf",
  "dns: five thousand queries of four clients, each answered",
  () =>
    withFolder((folder) =>
      serving("dns.ts", LISTEN, async (server) => {
        writeFileSync(
          `${folder}/queries`,
          "www.example.test A\nwww.example.test AAAA\nexample.test TXT\nnobody.example.test A\n",
        );
        // No more on the way than fit into the smallest buffer that a kernel gives.
        const { status, stdout, stderr } = await run(
          "dnsperf",
          [
            "-s",
            "127.0.0.1",
            "-p",
            server.port,
            "-d",
            `${folder}/queries`,
            "-n",
            "1250",
            "-c",
            "4",
            "-q",
            "50",
            "-e",
            "-t",
            "20",
          ],
        );
        assertEquals(status, 0, stdout + stderr);
        assertMatch(stdout, /Queries sent:\s+5000\n/);
        assertMatch(stdout, /Queries completed:\s+5000 \(100\.00%\)/);
        assertMatch(stdout, /Response codes:\s+NOERROR 3750 \(75\.00%\), NXDOMAIN 1250 \(25\.00%\)/);
      })
    ),
);

void test(`${runtimeName} dns: a wrong zone is one line on stderr and status 1`, () =>
  withFolder(async (folder) => {
    const zone = `${folder}/zone.json`;
    writeFileSync(zone, JSON.stringify({ origin: "corp.test", records: { db: { A: ["10.0.0.256"] } } }));
    const { status, stdout, stderr } = await launch("dns.ts", [...LISTEN, "--zone", zone]).finish();
    assertEquals(
      { status, stdout, stderr },
      { status: 1, stdout: "", stderr: "TypeError: db.corp.test has an address that is none: 10.0.0.256\n" },
    );
  }));
