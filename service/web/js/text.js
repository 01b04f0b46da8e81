// The page's words, in English and Chinese; elements with data-text show them.

const WORDS = {
  en: {
    tagline: "Text classification and question answering with ALBERT, on this machine.",
    language: "Language", key: "API key, if the service wants one", documents: "API documents",
    classify: "Classify", ask: "Ask", fill: "Fill in", explain: "Explain", service: "Service",
    model: "Model", texts: "Texts, one a line", question: "Question", document: "Document to look in", text: "Text",
    masked: "Texts with [MASK] for a word, one a line", words: "Words for each", best: "likeliest",
    files: "or files: text, PDF, pictures of pages", answers: "Answers", none: "there may be no answer", phrases: "neighbouring words together, too",
    same: "The same with curl and with Python", waiting: "waiting for the service…",
    ready: "Ready.", away: "The service does not answer. What you typed stays here; this page tries again.",
    tokens: "tokens", cut: "cut to the model's length", windows: "windows", time: "Time",
    noAnswer: "The documents hold no answer.", noAnswerScore: "chance of no answer", next: "Show it",
    unread: "windows were not read: they have less in common with the question",
    whole: "for", without: "What each word is worth: green speaks for it, red against it.",
    forms: "How the decision forms, turn by turn of the shared layer", leaves: "early exit would end after turn",
    attention: "Where it looked", reaches: "What of each word flows through all layers to the answer (rollout): a flow, not a cause.",
    layer: "Layer", head: "Head", tooMany: "More than 64 tokens are too small to see; the answer of the service has them.",
    depth: "turn", together: "Neighbours together", interaction: "beyond the sum of each",
    page: "page", gone: "cannot be read any more: choose it again", large: "is larger than 10 MB", network: "The service cannot be reached.",
    perSecond: "requests a second", busy: "device busy", queued: "tokens waiting", step: "tokens a step",
    saved: "layers saved by early exit", typical: "half of the requests within", slow: "95 % within",
    refused: "refused since the start", version: "Version", task: "Task", precision: "Computes in",
  },
  zh: {
    tagline: "用 ALBERT 做文本分类与问答，就在这台机器上。",
    language: "语言", key: "API 密钥（如果服务需要）", documents: "接口文档",
    classify: "分类", ask: "提问", fill: "填空", explain: "解释", service: "服务",
    model: "模型", texts: "文本，每行一条", question: "问题", document: "在其中寻找答案的文档", text: "文本",
    masked: "用 [MASK] 代替一个词的文本，每行一条", words: "每处给出的词数", best: "最可能",
    files: "或文件：文本、PDF、页面图片", answers: "答案数", none: "可能没有答案", phrases: "相邻的词也一起看",
    same: "用 curl 与 Python 做同样的事", waiting: "正在等待服务……",
    ready: "就绪。", away: "服务没有响应。您输入的内容仍在这里，页面会继续尝试。",
    tokens: "个词元", cut: "已截到模型的长度", windows: "个窗口", time: "耗时",
    noAnswer: "文档中没有答案。", noAnswerScore: "没有答案的可能", next: "显示",
    unread: "个窗口未读：它们与问题的共同点较少",
    whole: "支持", without: "每个词的作用：绿色支持，红色反对。",
    forms: "共享层每转一圈，决定如何形成", leaves: "提前退出会停在第几圈：",
    attention: "它看向哪里", reaches: "每个词经过所有层流到答案的份额（rollout）：是流向，不是原因。",
    layer: "层", head: "头", tooMany: "超过 64 个词元，图上看不清；服务的回答里有全部数值。",
    depth: "圈", together: "相邻的词一起", interaction: "超出各自之和",
    page: "第几页：", gone: "无法再读取，请重新选择", large: "超过 10 MB", network: "无法连接到服务。",
    perSecond: "每秒请求", busy: "设备忙碌", queued: "等待的词元", step: "每步词元",
    saved: "提前退出省下的层", typical: "一半的请求在", slow: "95 % 的请求在",
    refused: "启动以来拒绝", version: "版本", task: "任务", precision: "计算精度",
  },
};

let language = localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en");

export const t = (name) => WORDS[language][name] ?? WORDS.en[name] ?? name;
export const current = () => language;
export const names = () => Object.keys(WORDS.en).filter((name) => !(name in WORDS.zh));

export function speak(chosen) {
  language = chosen in WORDS ? chosen : "en";
  localStorage.setItem("language", language);
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
}
