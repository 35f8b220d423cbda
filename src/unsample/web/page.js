// What Gradio leaves out: alternative texts of pictures, and a picture pasted anywhere on the page.
() => {
  const name = (image) => {
    const block = image.closest(".block, .form, .gallery, figure") || image.parentElement;
    const example = image.closest("[id$='-examples']");
    if (example) return "photograph " + decodeURIComponent(image.src.split("/").pop().split(".")[0]);
    const label = block && block.querySelector("label[data-testid='block-label'], [data-testid='block-info'], .label");
    return label ? label.textContent.trim() : "picture";
  };
  const describe = () => {
    for (const image of document.querySelectorAll("img:not([alt]), img[alt='']")) image.alt = name(image);
    for (const empty of document.querySelectorAll(".empty[aria-label]:not([role])")) empty.setAttribute("role", "img");
    const said = document.querySelector("#said");
    if (said) said.setAttribute("aria-live", "polite");
  };
  new MutationObserver(describe).observe(document.body, { childList: true, subtree: true });
  describe();
  const put = (files, tries) => {
    const input = document.querySelector("#photo input[type=file]");
    if (input) {
      input.files = files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    } else if (tries) {
      const clear = document.querySelector("#photo button[aria-label='Clear'], #photo button[title='Clear']");
      if (clear) clear.click();
      setTimeout(() => put(files, tries - 1), 100);
    }
  };
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData && event.clipboardData.files;
    if (files && files.length && files[0].type.startsWith("image/")) {
      event.preventDefault();
      put(files, 20);
    }
  });
}
