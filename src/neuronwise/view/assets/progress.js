// How far work is, in words.

function progressOf({ stage, done, total, left }) {
  const share = total ? ` ${done}/${total}` : "";
  const rest = left == null || left < 1 ? "" : `, about ${left < 90 ? `${Math.round(left)} s` : `${Math.round(left / 60)} min`} left`;
  return stage + share + rest;
}
