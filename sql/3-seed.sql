-- Something to read and write: customers and their orders.
SET NOCOUNT ON;
USE [$(DATABASE)];
IF OBJECT_ID(N'dbo.customers', N'U') IS NULL
BEGIN
    CREATE TABLE dbo.customers (
        id int IDENTITY PRIMARY KEY,
        name nvarchar(100) NOT NULL,
        since datetime2(0) NOT NULL DEFAULT SYSUTCDATETIME()
    );
    CREATE TABLE dbo.orders (
        id int IDENTITY PRIMARY KEY,
        customer int NOT NULL REFERENCES dbo.customers (id),
        amount decimal(12, 2) NOT NULL CHECK (amount > 0),
        placed datetime2(0) NOT NULL DEFAULT SYSUTCDATETIME()
    );
END;
GO
IF NOT EXISTS (SELECT 1 FROM dbo.customers)
BEGIN
    DECLARE @at int = 1;
    WHILE @at <= 100
    BEGIN
        INSERT INTO dbo.customers (name) VALUES (N'Customer ' + CAST(@at AS nvarchar(10)));
        INSERT INTO dbo.orders (customer, amount) VALUES (@at, @at * 1.50), (@at, @at * 2.25);
        SET @at = @at + 1;
    END;
END;
GO
