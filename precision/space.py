"""Space: which schemes each site of a model may choose from, by the rules of a recipe."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from precision.mistakes import RecipeError, nearest
from precision.policy import Scheme
from precision.recipe import Recipe
from precision.sections import Rule
from precision.site import Site

_LISTED = 4  # sites named in one line


def resolve_space(recipe: Recipe, sites: Sequence[Site]) -> dict[str, tuple[Scheme, ...]]:
    """Give every site the schemes of the first rule that matches it, in the order of `sites`.

    A rule matches a site when its shell pattern matches the whole name (upper and lower case differ) and its op, where
    it has one, is the site's.

    Raises:
        RecipeError: a rule matches no site, or only sites that earlier rules have taken; a site matches no rule; or
            sites of one group come to different lists. One message names them all.
        ValueError: two sites have the same name.
    """
    if len({site.name for site in sites}) != len(sites):
        raise ValueError("sites must have different names")
    first: dict[str, int] = {}
    for site in sites:
        matching = (index for index, rule in enumerate(recipe.space) if _matches(rule, site))
        index = next(matching, None)
        if index is not None:
            first[site.name] = index
    lines = [line for index in range(len(recipe.space)) if (line := _idle_rule(recipe.space, index, sites, first))]
    lines += [_unmatched_site(recipe.space, site) for site in sites if site.name not in first]
    lines += _divided_groups(recipe.space, sites, first)
    if lines:
        raise RecipeError(f"space of {recipe.name}", lines)
    return {name: tuple(recipe.scheme(scheme) for scheme in recipe.space[index].allow) for name, index in first.items()}


def resolve_groups(recipe: Recipe, sites: Sequence[Site]) -> dict[str, str]:
    """Give sites that must take one scheme the name of their group; sites that move alone are left out.

    A rule that says `agree` makes a group of its sites, earlier rules considered: of all of them (`rule`), or of those
    that lie in one module (`module`), whose names are the same up to the last dot.
    """
    members: dict[str, list[str]] = {}
    for site in sites:
        index = next((index for index, rule in enumerate(recipe.space) if _matches(rule, site)), None)
        if index is None or recipe.space[index].agree is None:
            continue
        module = site.name.rpartition(".")[0] if recipe.space[index].agree == "module" else "*"
        members.setdefault(f"space[{index}] {module}", []).append(site.name)
    return {name: group for group, names in members.items() if len(names) > 1 for name in names}


def _matches(rule: Rule, site: Site) -> bool:
    return fnmatchcase(site.name, rule.match) and rule.op in (None, site.op)


def _told(index: int, rule: Rule) -> str:
    return f"space[{index}] ({rule.match!r}{f', op {rule.op}' if rule.op else ''})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _idle_rule(rules: Sequence[Rule], index: int, sites: Sequence[Site], first: dict[str, int]) -> str | None:
    rule = rules[index]
    matched = [site.name for site in sites if _matches(rule, site)]
    if any(first[name] == index for name in matched):
        return None
    if matched:
        takers = sorted({first[name] for name in matched})
        by = ", ".join(_told(taker, rules[taker]) for taker in takers)
        return f"{_told(index, rule)} comes too late: {_listed(matched)} is taken by {by}; put it before or delete it"
    other = [f"{site.name} ({site.op})" for site in sites if fnmatchcase(site.name, rule.match)]
    if other:
        return f"{_told(index, rule)} matches no site: the name fits {_listed(other)}, the op does not"
    return f"{_told(index, rule)} matches no site{nearest(rule.match, [site.name for site in sites])}"


def _unmatched_site(rules: Sequence[Rule], site: Site) -> str:
    by_name = [_told(index, rule) for index, rule in enumerate(rules) if fnmatchcase(site.name, rule.match)]
    if by_name:
        hint = f": {by_name[0]} fits the name, not the op"
    else:
        near = nearest(site.name, [rule.match for rule in rules])
        hint = near.replace("did you mean", "the nearest pattern is").removesuffix("?")
    return f"site {site.name!r} ({site.op}) matches no rule{hint}; end space with {{match: '*', allow: [...]}}"


def _divided_groups(rules: Sequence[Rule], sites: Sequence[Site], first: dict[str, int]) -> list[str]:
    lines = []
    for group in dict.fromkeys(site.group for site in sites if site.group is not None):
        lists: dict[tuple[str, ...], str] = {}
        for site in sites:
            if site.group == group and site.name in first:
                lists.setdefault(rules[first[site.name]].allow, f"{site.name} by space[{first[site.name]}]")
        if len(lists) > 1:
            got = "; ".join(f"[{', '.join(allow)}] for {who}" for allow, who in lists.items())
            lines.append(f"sites of group {group!r} compute together and must allow the same list, got {got}")
    return lines
