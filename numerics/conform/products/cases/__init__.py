"""The products that are asked, and the law that each is judged by."""
