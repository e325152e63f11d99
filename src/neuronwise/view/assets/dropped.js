// A photo that is dropped, chosen or pasted, or a text that is typed: what the model is asked about.

const ACCEPTED = "image/jpeg,image/png,image/gif,image/webp,image/avif,image/tiff,image/bmp";

/** Builds the field into `place`; `changed` is called with { photo } or { text }, or null while there is neither. */
function takeInput(place, changed, { text = "" } = {}) {
  const state = { photo: null, url: null };
  const area = make("textarea", { rows: 2, maxlength: 8000, "aria-label": "A text for the model to continue",
    placeholder: "Type a text, or drop a photo here" });
  const file = make("input", { type: "file", accept: ACCEPTED, class: "unseen", tabindex: -1, "aria-hidden": "true" });
  const choose = make("button", { type: "button" }, "Choose a photo");
  const image = make("img", { alt: "The photo that you gave" });
  const drop = make("button", { type: "button", class: "plain" }, "take the photo away");
  const shown = make("div", { class: "given-photo", hidden: "" }, image, drop);
  const trouble = make("p", { class: "note", role: "alert", hidden: "" });
  const zone = make("div", { class: "zone" }, shown, area, make("p", { class: "line-of" }, choose, file), trouble);
  place.replaceChildren(zone);
  area.value = text;

  const give = () => changed(state.photo ? { photo: state.photo } : area.value.trim() ? { text: area.value } : null, state.url);
  async function take(blob) {
    problem(null, trouble);
    try {
      const answer = await send("/api/photos", blob, { "content-type": "application/octet-stream" });
      state.photo = (await answer.json()).photo;
      state.url = `/api/photos/${state.photo}`;
      image.src = state.url;
      shown.hidden = false;
      area.hidden = true;
      give();
    } catch (error) {
      problem(error, trouble);
    }
  }
  choose.addEventListener("click", () => file.click());
  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0]); file.value = ""; });
  drop.addEventListener("click", () => {
    Object.assign(state, { photo: null, url: null });
    shown.hidden = true;
    area.hidden = false;
    area.focus();
    give();
  });
  area.addEventListener("input", give);
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && zone.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])][0];
    if (pasted) take(pasted);
  });
  if (text) give();
}
