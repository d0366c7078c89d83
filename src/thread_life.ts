/**
 * Which of the program's threads are alive, in memory that all threads share which a server or `Replicas` has started: a lock is to know
 * whether its owner is.
 */

/** What a thread is told of itself when it is started. */
export interface ThreadLife {
  /** The memory that says which threads are alive. */
  readonly memory: SharedArrayBuffer;
  /** The thread's number, which no other has. */
  readonly token: number;
}

// Words at the start of the memory: a random number that tells it from another such memory, and how many tokens were made.
const ID = 0;
const MADE = 1;
const WORDS = 2;
/** A slot of two words for each thread: its token, 0 when the slot is free, and that of the thread which has started it. */
const PARENT = 1;
const SLOT_WORDS = 2;
/** The slot's number is a token's lowest bits. */
const SLOT_BITS = 10;
const SLOTS = 1 << SLOT_BITS;
/** Bits of what makes a token of a slot differ from the ones before. */
const GENERATIONS = 1 << 20;

/** The token of a thread of which nobody knows whether it is alive: it counts as alive. */
export const UNKNOWN = 1 << 30;

let words: Int32Array<SharedArrayBuffer> | null = null;
let own = UNKNOWN;

/** Called in a thread, before anything else there: who it is. */
export function setThreadLife({ memory, token }: ThreadLife): void {
  words = new Int32Array(memory);
  own = token;
}

/** The token of this thread. */
export function ownToken(): number {
  registry();
  return own;
}

/** The number of the memory that this thread knows the others by. */
export function registryId(): number {
  return registry()[ID]!;
}

/** Whether a thread is alive, by its token and that of who started it: threads end with the one that has started them. */
export function isAlive(token: number): boolean {
  const words = registry();
  for (let each = token; each !== UNKNOWN && each !== 0;) {
    const slot = slotOf(each);
    if (Atomics.load(words, slot) !== each) return false;
    each = Atomics.load(words, slot + PARENT);
  }
  return true;
}

/** Gives a thread that is about to be started a token. */
export function beginLife(): ThreadLife {
  const words = registry();
  const memory = words.buffer;
  for (let number = 0; number < SLOTS; number++) {
    const slot = WORDS + number * SLOT_WORDS;
    if (Atomics.load(words, slot) !== 0) continue;
    const token = (Atomics.add(words, MADE, 1) & GENERATIONS - 1) << SLOT_BITS | number;
    // 0 says that the slot is free.
    if (token === 0 || Atomics.compareExchange(words, slot, 0, token) !== 0) continue;
    Atomics.store(words, slot + PARENT, own);
    return { memory, token };
  }
  // With more than a thousand threads at once, those beyond are not known.
  return { memory, token: UNKNOWN };
}

/** None of a thread's code runs any more. */
export function endLife({ token }: ThreadLife): void {
  if (token !== UNKNOWN) Atomics.compareExchange(registry(), slotOf(token), token, 0);
}

function slotOf(token: number): number {
  return WORDS + (token & SLOTS - 1) * SLOT_WORDS;
}

/** The memory; the first thread, and one that nobody here has started, makes its own. */
function registry(): Int32Array<SharedArrayBuffer> {
  if (words !== null) return words;
  words = new Int32Array(new SharedArrayBuffer((WORDS + SLOTS * SLOT_WORDS) * 4));
  words[ID] = 1 + Math.floor(Math.random() * (2 ** 31 - 1));
  words[MADE] = 1;
  // Nobody would know of its end.
  own = UNKNOWN;
  return words;
}
