// Opens pages in a headless browser and prints what it found as JSON: node browser.mjs FOLDER PAGE...
// It needs the npm packages @sparticuz/chromium, whose files include a browser, and puppeteer-core.

import { pathToFileURL } from "node:url";
import { basename, join } from "node:path";

import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [folder, ...pages] = process.argv.slice(2);
const browser = await puppeteer.launch({
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
});
const found = [];
for (const file of pages) {
  for (const scheme of ["light", "dark"]) {
    for (const width of [375, 1280]) {
      const page = await browser.newPage();
      const messages = [];
      const requests = [];
      page.on("console", (message) => messages.push(`${message.type()}: ${message.text()}`));
      page.on("pageerror", (error) => messages.push(String(error)));
      page.on("request", (request) => requests.push(request.url().slice(0, 80)));
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.setViewport({ width, height: 900, deviceScaleFactor: 1 });
      await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
      const measured = await page.evaluate(() => {
        for (const details of document.querySelectorAll("details")) details.open = true;
        const root = document.documentElement;
        const wide = [...document.querySelectorAll("main *")].filter((each) =>
          !each.closest(".scroll") && !each.closest("svg") && each.getBoundingClientRect().right > root.clientWidth + 1);
        const channels = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
        const style = getComputedStyle(document.body);
        return {
          scrollWidth: root.scrollWidth,
          clientWidth: root.clientWidth,
          wide: wide.slice(0, 5).map((each) => each.outerHTML.slice(0, 120)),
          images: [...document.images].map((image) => ({ alt: image.alt, width: image.naturalWidth })),
          pictures: [...document.querySelectorAll("svg")].map((svg) => {
            const box = svg.getBoundingClientRect();
            return { label: svg.getAttribute("aria-label"), width: box.width, height: box.height,
                     paths: svg.querySelectorAll("path").length };
          }),
          smallest: Math.min(...[...document.querySelectorAll("svg text")].map((each) => {
            const svg = each.ownerSVGElement;
            return parseFloat(getComputedStyle(each).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
          })),
          text: channels(style.color),
          background: channels(style.backgroundColor),
        };
      });
      const shot = join(folder, `${basename(file, ".html")}-${width}-${scheme}.png`);
      await page.screenshot({ path: shot, fullPage: true });
      found.push({ file: basename(file), scheme, width, shot, messages, requests, ...measured });
      await page.close();
    }
  }
}
await browser.close();
console.log(JSON.stringify(found));
