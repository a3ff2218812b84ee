module imagekit.test/pause

go 1.26
