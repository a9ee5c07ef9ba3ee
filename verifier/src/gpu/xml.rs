//! The part of XML that reference manifests need: Canonical XML 1.1 without comments, of documents that have no DTD, no
//! processing instructions and no attributes of the `xml` namespace. Without those, versions 1.0 and 1.1 agree.

use roxmltree::{Document, Node, ParsingOptions};

/// Longest manifest that is looked at, in bytes; real ones have about 21 KB.
const MAX_LEN: usize = 256 * 1024;
/// Most nodes, attributes not counted; real ones have about 200.
const MAX_NODES: u32 = 4_000;
/// Deepest nesting; real ones have 6.
const MAX_DEPTH: usize = 16;
/// Most attributes of one element; real ones have up to 11, and 4 more for each alternative value.
const MAX_ATTRIBUTES: usize = 64;
/// Most declarations of namespaces; real ones have 6.
const MAX_NAMESPACES: usize = 16;
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Parses a document; anything that could reach outside it, or make it grow, is refused.
pub(super) fn parse(text: &str) -> Result<Document<'_>, String> {
    if text.len() > MAX_LEN {
        return Err(format!("{} bytes are too many for a manifest", text.len()));
    }
    // The parser compares attributes with one another, and namespaces with those in scope, so both are counted before it: by
    // the signs without which there is none. One pass over the text, whatever it holds.
    if text.split('<').any(|tag| tag.bytes().filter(|byte| *byte == b'=').count() > MAX_ATTRIBUTES) {
        return Err(format!("an element has more than {MAX_ATTRIBUTES} attributes"));
    }
    if text.matches("xmlns").count() > MAX_NAMESPACES {
        return Err(format!("it declares more than {MAX_NAMESPACES} namespaces"));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| error.to_string())?;
    for node in document.descendants() {
        if node.is_pi() {
            return Err("it has a processing instruction".into());
        }
        if node.attributes().any(|attribute| attribute.namespace() == Some(XML)) {
            return Err("it has an attribute of the xml namespace".into());
        }
        // On the tree, not on the text: what looks closed need not be. Nothing recursive has seen it yet.
        if node.ancestors().take(MAX_DEPTH + 2).count() > MAX_DEPTH + 1 {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
    }
    Ok(document)
}

/// A namespace as it stands in the output: prefix (empty for the default) and name.
type Rendered = Vec<(String, String)>;

/// Canonical form of an element and what is in it, without the elements that are left out.
pub(super) fn canonical(element: Node<'_, '_>, without: Option<Node<'_, '_>>) -> Vec<u8> {
    let mut out = String::new();
    write(&mut out, element, without, &Rendered::new());
    out.into_bytes()
}

fn write(out: &mut String, element: Node<'_, '_>, without: Option<Node<'_, '_>>, above: &Rendered) {
    let source = element.document().input_text();
    let start = element.range().start + 1;
    let name_len = source[start..].find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(0);
    let name = &source[start..start + name_len];
    out.push('<');
    out.push_str(name);

    let mut rendered = above.clone();
    let mut new: Vec<(String, String)> = Vec::new();
    for namespace in element.namespaces().filter(|namespace| namespace.name() != Some("xml")) {
        let pair = (namespace.name().unwrap_or_default().to_owned(), namespace.uri().to_owned());
        // A default namespace that is empty is only written where it takes one away.
        let known = rendered.iter().find(|(prefix, _)| *prefix == pair.0);
        let same = known.map_or(pair == (String::new(), String::new()), |known| *known == pair);
        if !same {
            rendered.retain(|(prefix, _)| *prefix != pair.0);
            rendered.push(pair.clone());
            new.push(pair);
        }
    }
    new.sort();
    for (prefix, uri) in new {
        out.push_str(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
        out.push_str(&prefix);
        out.push_str("=\"");
        escape(out, &uri, true);
        out.push('"');
    }
    let mut attributes: Vec<_> = element.attributes().collect();
    attributes.sort_by_key(|attribute| (attribute.namespace().unwrap_or_default(), attribute.name()));
    for attribute in attributes {
        out.push(' ');
        out.push_str(&source[attribute.range_qname()]);
        out.push_str("=\"");
        escape(out, attribute.value(), true);
        out.push('"');
    }
    out.push('>');
    for child in element.children().filter(|child| Some(*child) != without) {
        if child.is_element() {
            write(out, child, without, &rendered);
        } else if child.is_text() {
            escape(out, child.text().unwrap_or_default(), false);
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

fn escape(out: &mut String, text: &str, attribute: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' if !attribute => out.push_str("&gt;"),
            '"' if attribute => out.push_str("&quot;"),
            '\t' if attribute => out.push_str("&#x9;"),
            '\n' if attribute => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(text: &str) -> String {
        let document = parse(text).unwrap();
        String::from_utf8(canonical(document.root_element(), None)).unwrap()
    }

    /// Canonical XML 1.1, sections 3.2 to 3.4, as far as documents without a DTD go.
    #[test]
    fn the_specifications_examples() {
        assert_eq!(
            canon("<doc>\n   <clean>   </clean>\n   <mixed>\n      A\n      <clean>   </clean>\n   </mixed>\n</doc>"),
            "<doc>\n   <clean>   </clean>\n   <mixed>\n      A\n      <clean>   </clean>\n   </mixed>\n</doc>"
        );
        assert_eq!(
            canon(
                r#"<doc><e1   /><e2   ></e2><e3   name = "elem3"   id="elem3"   /><e5 a:attr="out" b:attr="sorted" attr2="all" attr="I'm"
                xmlns:b="http://www.ietf.org" xmlns:a="http://www.w3.org" xmlns="http://example.org"/>
                <e6 xmlns="" xmlns:a="http://www.w3.org"><e7 xmlns="http://www.ietf.org"><e8 xmlns="" xmlns:a="http://www.w3.org"/></e7></e6></doc>"#
            ),
            r#"<doc><e1></e1><e2></e2><e3 id="elem3" name="elem3"></e3><e5 xmlns="http://example.org" xmlns:a="http://www.w3.org" xmlns:b="http://www.ietf.org" attr="I'm" attr2="all" b:attr="sorted" a:attr="out"></e5>
                <e6 xmlns:a="http://www.w3.org"><e7 xmlns="http://www.ietf.org"><e8 xmlns=""></e8></e7></e6></doc>"#
        );
        assert_eq!(
            canon(
                "<doc><text>First line&#x0d;&#10;Second line</text><value>&#x32;</value><compute><![CDATA[value>\"0\" && value<\"10\" ?\"valid\":\"error\"]]></compute><norm attr=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; '/></doc>"
            ),
            "<doc><text>First line&#xD;\nSecond line</text><value>2</value><compute>value&gt;\"0\" &amp;&amp; value&lt;\"10\" ?\"valid\":\"error\"</compute><norm attr=\" '    &#xD;&#xA;&#x9;   ' \"></norm></doc>"
        );
        assert_eq!(canon("<a><!-- gone --><b/></a><!-- gone -->"), "<a><b></b></a>");
    }

    #[test]
    fn a_part_takes_its_namespaces_along_and_a_left_out_part_is_gone() {
        let text = r#"<a xmlns="u:1" xmlns:x="u:2"><x:b c="1"/><d/></a>"#;
        let document = parse(text).unwrap();
        let b = document.descendants().find(|node| node.has_tag_name(("u:2", "b"))).unwrap();
        assert_eq!(String::from_utf8(canonical(b, None)).unwrap(), r#"<x:b xmlns="u:1" xmlns:x="u:2" c="1"></x:b>"#);
        let rest = String::from_utf8(canonical(document.root_element(), Some(b))).unwrap();
        assert_eq!(rest, r#"<a xmlns="u:1" xmlns:x="u:2"><d></d></a>"#);
    }

    #[test]
    fn what_reaches_out_or_grows_is_refused_at_once() {
        let deep = "<a>".repeat(300_000);
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;&b;&b;\">]><a>&c;</a>";
        let external = "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>";
        let wide = format!("<a>{}</a>", "<b/>".repeat(50_000));
        let large = format!("<a>{}</a>", " ".repeat(2 << 20));
        // Tags that look closed and are not; tags without an end; many attributes; many namespaces, in scope of many elements.
        let disguised = format!("{}{}", "<a b=\"/>\">".repeat(1_500), "</a>".repeat(1_500));
        let endless = "<a</a".repeat(50_000);
        let attributes: String = (0..20_000).map(|n| format!(" a{n}=\"\"")).collect();
        let attributes = format!("<a{attributes}/>");
        let namespaces: String = (0..40).map(|n| format!(" xmlns:n{n}=\"u\"")).collect();
        let namespaces = format!("<a{namespaces}>{}</a>", "<b/>".repeat(1_500));
        let declared: String = (0..1_500).map(|n| format!("<b xmlns:n{n}=\"u\"/>")).collect();
        let declared = format!("<a>{declared}</a>");
        for text in [&disguised, &endless, &attributes, &namespaces, &declared] {
            assert!(parse(text).is_err(), "{}", &text[..60]);
        }
        for text in
            [&deep, bomb, external, &wide, &large, "<a><?b c?></a>", "<a xml:id=\"b\"/>", "<a>&b;</a>", "<a", ""]
        {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
