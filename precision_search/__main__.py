"""`python -m precision_search` is `precision-search`."""

from precision_search.main import main

if __name__ == "__main__":
    main()
