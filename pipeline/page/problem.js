// What went wrong, in a visitor's words: a title, what there is to tell, and what to do about it.

export class Problem extends Error {
  constructor({ code, title, detail = "", action = "" }) {
    super(title);
    Object.assign(this, { code, title, detail, action });
  }
}
