// How old a token is. A clock that is set, and a machine that sleeps, must not make an old token look young:
// `performance.now()` stands still in the sleep of some systems, and `Date.now()` jumps when it is corrected.
// Of the two the one that has gone further counts; a token that is taken for older than it is costs a refresh.

/** @typedef {{steady: number, wall: number}} Moment seconds of both clocks */

/** @returns {Moment} */
export function moment() {
  return { steady: performance.now() / 1000, wall: Date.now() / 1000 };
}

/**
 * @param {Moment} since
 * @param {() => Moment} now
 * @returns {number} seconds
 */
export function age(since, now = moment) {
  const { steady, wall } = now();
  return Math.max(steady - since.steady, wall - since.wall, 0);
}
