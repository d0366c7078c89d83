import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { formatSyslog, parseSyslog } from "../../examples/syslog.ts";

test("syslog: the lines that messages become", () => {
  for (
    const [message, line] of [
      // The examples of RFC 3164, section 5.4, and RFC 5424, section 6.5.
      [
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
        "auth.crit Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
      ],
      ["<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", "user.notice Feb  5 17:32:18 - -: 10.0.0.99 Use the BFG!"],
      ["Use the BFG!", "Use the BFG!"],
      [
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed",
        "auth.crit 2003-10-11T22:14:15.003Z mymachine.example.com su: 'su root' failed",
      ],
      [
        "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        "local4.notice 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc[8710]: %% It's time to make the do-nuts.",
      ],
      [
        '<165>1 2003-10-11T22:14:15.003Z host app - ID47 [a@1 k="v" e="\\"\\]\\\\"][b x=""] text',
        'local4.notice 2003-10-11T22:14:15.003Z host app: [a@1 k="v" e="\\"\\]\\\\"][b x=""] text',
      ],
      ["<191>1 - - - - - -", "local7.debug - - -: "],
      // A program of the same machine sends no host.
      ["<13>Nov 24 08:08:18 root: hello", "user.notice Nov 24 08:08:18 - root: hello"],
      ["<86>Nov  4 08:08:18 sshd[99]: a b: c\n", "authpriv.info Nov  4 08:08:18 - sshd[99]: a b: c"],
      [
        "<30>Nov 24 08:08:18 fe80::1 postfix/smtpd[7]:no space\0",
        "daemon.info Nov 24 08:08:18 fe80::1 postfix/smtpd[7]: no space",
      ],
      ["<0>panic", "kern.emerg - - -: panic"],
      ["<13>Nov 32 08:08:18 root: no such day", "user.notice - - -: Nov 32 08:08:18 root: no such day"],
      // Neither forges a line nor commands the terminal.
      ["<13>a\n<0>b\u001b[2J\u0085\u2028c", "user.notice - - -: a\\x0a<0>b\\x1b[2J\\x85\\u2028c"],
      ["x\r\ny\n", "x\\x0d\\x0ay"],
    ] as const
  ) assertEquals(formatSyslog(message), line);
});

test("syslog: what is no message", () => {
  for (
    const message of [
      "",
      "<>x",
      "<192>x",
      "<013>x",
      "<1000>x",
      "< 13>x",
      "13 x",
      "<13",
      "<13>1 ",
      "<13>1 yesterday host app - - -",
      "<13>1 2003-10-11T22:14:15 host app - - -",
      "<13>1 2003-10-11T22:14:15.1234567Z host app - - -",
      "<13>1 - host app - -",
      "<13>1 - host app - - [x",
      '<13>1 - host app - - [x k="a]"b"] text',
      "<13>1 - host app - - [x k=v] text",
      "<13>1 - host app - - -text",
    ]
  ) assertEquals(parseSyslog(message), null, message);
});

test("syslog: a hostile message costs no more than its length", () => {
  const long = 60_000;
  for (
    const message of [
      "<13>Nov 24 08:08:18 " + "a".repeat(long),
      "<13>Nov 24 08:08:18 " + "a[".repeat(long / 2),
      "<13>1 - - - - - " + "[a]".repeat(long / 3) + "[",
      '<13>1 - - - - - [a k="' + "\\".repeat(long),
      "<13>1 - - - - - [a" + ' k="v"'.repeat(long / 6),
    ]
  ) {
    // A parser that goes over it again and again would not be done before the runner's patience is.
    for (let i = 0; i < 200; i++) assertEquals(formatSyslog(message).length > long, true);
  }
});
